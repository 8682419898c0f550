"""The whole log and whole tables, in order and in parts: for audits, rebuilding, copies. In the caller's transaction."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from nectar_protocol.tiles import WIDTH

from nectar_ledger.store.schema import log_entries, log_sealed, log_tiles

PART_ENTRIES = 16 * WIDTH
NO_SEALED: Mapping[int, bytes] = {}


class Part(NamedTuple):
    """Entries that follow each other, the first at `start`, and the sealed parts of those that have one, by index."""

    start: int
    entries: list[bytes]
    sealed: Mapping[int, bytes] = NO_SEALED


def read_parts(connection: sa.Connection) -> Iterator[Part]:
    """The log from its beginning until its end, or the first entry that is missing; 4,096 entries in all but the last
    part.
    """
    while_whole, start = True, 0
    while while_whole:
        stop = start + PART_ENTRIES
        within = sa.and_(log_entries.c.idx >= start, log_entries.c.idx < stop)
        rows = connection.execute(sa.select(log_entries).where(within).order_by(log_entries.c.idx)).all()
        entries = [entry for index, (idx, entry) in enumerate(rows, start) if idx == index]
        if entries:
            yield Part(start, entries, _sealed(connection, start, start + len(entries)))
        while_whole, start = len(entries) == PART_ENTRIES, stop


def _sealed(connection: sa.Connection, start: int, stop: int) -> dict[int, bytes]:
    within = sa.and_(log_sealed.c.idx >= start, log_sealed.c.idx < stop)
    return dict(connection.execute(sa.select(log_sealed).where(within)).tuples().all())


def read_tiles(connection: sa.Connection, level: int, start: int, stop: int) -> dict[int, bytes]:
    """Hashes of the tiles [start, stop) of a level, by index; those that are missing are left out."""
    within = sa.and_(log_tiles.c.level == level, log_tiles.c.n >= start, log_tiles.c.n < stop)
    return dict(connection.execute(sa.select(log_tiles.c.n, log_tiles.c.hashes).where(within)).tuples().all())


def count_rows(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
