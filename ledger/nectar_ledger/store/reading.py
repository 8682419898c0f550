"""What is read from and written to the log's tables outside of a group. All run in the caller's transaction."""

from collections.abc import Callable, Iterator, Sequence

import sqlalchemy as sa
from nectar_protocol.errors import MalformedError
from nectar_protocol.merkle import HASH_SIZE, Frontier
from nectar_protocol.note import Note
from nectar_protocol.tiles import Tile

from nectar_ledger.core.machine import Answer, Key, Row
from nectar_ledger.errors import DamagedError, NotFoundError
from nectar_ledger.store.schema import LIVE, checkpoints, commands, log_entries, log_head, log_tiles

ReadTile = Callable[[Tile], bytes]
# SQLite takes 32,766 parameters in a statement.
IDS_AT_ONCE = 10_000


def read_head(connection: sa.Connection) -> tuple[Frontier, int]:
    """The log's frontier, and the time of its last entry in ms. Raises DamagedError."""
    row = connection.execute(sa.select(log_head.c.size, log_head.c.frontier, log_head.c.time_ms)).one_or_none()
    last = connection.execute(sa.select(sa.func.max(log_entries.c.idx))).scalar()
    if row is None:
        raise DamagedError("the log's head is missing: restore the database from a backup")
    try:
        frontier = Frontier.unpack(row.frontier)
    except MalformedError as error:
        raise DamagedError("the log's head cannot be read: restore the database from a backup") from error
    if not row.size == frontier.size == (0 if last is None else last + 1):
        raise DamagedError(f"the log's head says {row.size} entries, its last is {last}: restore it from a backup")
    return frontier, row.time_ms


def read_tile(connection: sa.Connection, tile: Tile) -> bytes:
    """The tile's hashes, `tile.width` of them. Raises NotFoundError."""
    where = sa.and_(log_tiles.c.level == tile.level, log_tiles.c.n == tile.index)
    hashes = connection.execute(sa.select(log_tiles.c.hashes).where(where)).scalar() or b""
    if len(hashes) < tile.width * HASH_SIZE:
        raise NotFoundError(f"the log has not grown to {tile.path} yet")
    return bytes(hashes[: tile.width * HASH_SIZE])


def read_entries(connection: sa.Connection, start: int, stop: int) -> list[bytes]:
    """The entries [start, stop). Raises NotFoundError unless the log has them all."""
    where = sa.and_(log_entries.c.idx >= start, log_entries.c.idx < stop)
    entries = (
        connection.execute(sa.select(log_entries.c.entry).where(where).order_by(log_entries.c.idx)).scalars().all()
    )
    if len(entries) != stop - start:
        raise NotFoundError(f"the log has not all of the entries {start} to {stop - 1}")
    return list(entries)


def read_rows(connection: sa.Connection, table: sa.Table, live: bool = False) -> Iterator[Row]:
    """A table's rows in the order of its primary key; only those that still count where `live`."""
    statement = sa.select(table).order_by(*table.primary_key).execution_options(yield_per=1000)
    if live and LIVE in table.info:
        statement = statement.where(table.info[LIVE])
    for row in connection.execute(statement):
        yield tuple(row)


def read_answers(connection: sa.Connection, ids: Sequence[bytes]) -> dict[bytes, tuple[Key, Answer]]:
    """What was answered to those commands that are recorded."""
    found = {}
    for start in range(0, len(ids), IDS_AT_ONCE):
        where = commands.c.id.in_(ids[start : start + IDS_AT_ONCE])
        for row in connection.execute(sa.select(commands).where(where)):
            found[row.id] = Key(row.id, row.body_hash), Answer(row.log_index, row.response)
    return found


def read_newest_checkpoint(connection: sa.Connection) -> Note | None:
    """The one over the largest size that the database knows. Raises DamagedError."""
    statement = sa.select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
    data = connection.execute(statement).scalar()
    try:
        return None if data is None else Note.unpack(data)
    except MalformedError as error:
        raise DamagedError("the newest checkpoint cannot be read: restore the database from a backup") from error


def add_checkpoint(connection: sa.Connection, size: int, note: Note, signed_ms: int) -> None:
    connection.execute(sa.insert(checkpoints).values(size=size, note=note.pack(), signed_ms=signed_ms))
