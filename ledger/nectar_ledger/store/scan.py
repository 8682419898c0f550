"""The whole log and whole tables, in order and in parts: for audits and rebuilding. In the caller's transaction."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from nectar_protocol.tiles import MAX_LEVEL, WIDTH

from nectar_ledger.store.schema import checkpoints, log_entries, log_sealed, log_tiles

PART_ENTRIES = 16 * WIDTH
MAX_STRAYS = 100
NO_SEALED: Mapping[int, bytes] = {}


class Part(NamedTuple):
    """Entries that follow each other, the first at `start`, and the sealed parts of those that have one, by index."""

    start: int
    entries: list[bytes]
    sealed: Mapping[int, bytes] = NO_SEALED


def read_parts(connection: sa.Connection, start: int = 0) -> Iterator[Part]:
    """The log from `start` until its end, or the first entry that is missing; 4,096 entries in each but the last."""
    whole = True
    while whole:
        stop = start + PART_ENTRIES
        within = sa.and_(log_entries.c.idx >= start, log_entries.c.idx < stop)
        rows = connection.execute(sa.select(log_entries).where(within).order_by(log_entries.c.idx)).all()
        entries = [entry for index, (idx, entry) in enumerate(rows, start) if idx == index]
        if entries:
            yield Part(start, entries, _sealed(connection, start, start + len(entries)))
        whole, start = len(entries) == PART_ENTRIES, stop


def _sealed(connection: sa.Connection, start: int, stop: int) -> dict[int, bytes]:
    within = sa.and_(log_sealed.c.idx >= start, log_sealed.c.idx < stop)
    return {index: sealed for index, sealed in connection.execute(sa.select(log_sealed).where(within))}


def find_tile(connection: sa.Connection, level: int, index: int) -> bytes | None:
    """All the hashes that are kept of a tile; None if there are none."""
    where = sa.and_(log_tiles.c.level == level, log_tiles.c.n == index)
    return connection.execute(sa.select(log_tiles.c.hashes).where(where)).scalar()


def find_checkpoint(connection: sa.Connection, size: int) -> bytes | None:
    """The note of the checkpoint over `size` entries; None if there is none."""
    return connection.execute(sa.select(checkpoints.c.note).where(checkpoints.c.size == size)).scalar()


def delete_rows(connection: sa.Connection, table: sa.Table) -> None:
    """All of them."""
    connection.execute(sa.delete(table))


def find_strays(connection: sa.Connection, size: int) -> list[str]:
    """Rows of the log's tables that a log of `size` entries has not: table and key, at most 100 of each table."""
    level, n = log_tiles.c.level, log_tiles.c.n
    beyond = [sa.and_(level == one, n >= -(-(size >> 8 * one) // WIDTH)) for one in range(MAX_LEVEL + 1)]
    outside = {
        log_entries: sa.or_(log_entries.c.idx < 0, log_entries.c.idx >= size),
        log_sealed: sa.or_(log_sealed.c.idx < 0, log_sealed.c.idx >= size),
        log_tiles: sa.or_(level < 0, level > MAX_LEVEL, n < 0, *beyond),
    }
    found = []
    for table, where in outside.items():
        rows = connection.execute(sa.select(*table.primary_key).where(where).limit(MAX_STRAYS))
        found += [f"{table.name} {'/'.join(map(str, row))}" for row in rows]
    return found
