"""What one transaction writes. A row that changes often is written once, as it is in the end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

import sqlalchemy as sa

from nectar_ledger.core.machine import Draft, Row
from nectar_ledger.errors import StoreError
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import ADDED_ONLY, log_entries, log_sealed, log_tiles


class Rows:
    """A machine's rows until they are written: the newest of each key, and all of those that are only added."""

    def __init__(self, tables: Mapping[str, sa.Table]) -> None:
        self._tables = tables
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)

    def add(self, rows: Iterable[tuple[str, Row]]) -> None:
        for name, row in rows:
            self._rows[name].append(row)

    def write(self, connection: sa.Connection, database: Database) -> None:
        """And forget them. Raises StoreError for rows of a table that was not declared."""
        unknown = self._rows.keys() - self._tables.keys()
        if unknown:
            raise StoreError(f"the core has rows for {sorted(unknown)}: declare these tables to the sequencer")
        # In the order in which the tables were declared, so that a row that others refer to is there before them.
        for name, table in self._tables.items():
            rows = self._rows.pop(name, None)
            if rows is None:
                continue
            if ADDED_ONLY.items() <= table.info.items():
                database.add(connection, table, rows)
            else:
                database.put(connection, table, _newest(table, rows))


class Changes:
    """Collected from entry to entry. `tables` are the machine's, by name; the log's are here by themselves."""

    def __init__(self, tables: Mapping[str, sa.Table], size: int) -> None:
        self.size = size
        self.entries: list[tuple[int, bytes]] = []
        self._rows = Rows(tables)
        self._sealed: list[Row] = []
        self._tiles: list[Row] = []

    def add_entry(self, draft: Draft) -> None:
        self.entries.append((self.size, draft.entry))
        if draft.sealed is not None:
            self._sealed.append((self.size, draft.sealed))
        self.size += 1

    def add_rows(self, rows: Iterable[tuple[str, Row]]) -> None:
        self._rows.add(rows)

    def add_tiles(self, tiles: Mapping[tuple[int, int], bytes]) -> None:
        self._tiles += [(level, index, hashes) for (level, index), hashes in tiles.items()]

    def write(self, connection: sa.Connection, database: Database) -> None:
        """Raises StoreError for rows of a table that was not declared."""
        database.add(connection, log_entries, self.entries)
        database.put(connection, log_tiles, self._tiles)
        if self._sealed:
            database.add(connection, log_sealed, self._sealed)
        self._rows.write(connection, database)


def _newest(table: sa.Table, rows: Sequence[Row]) -> list[Row]:
    """Of the rows with the same primary key, the last one."""
    key = itemgetter(*(position for position, column in enumerate(table.columns) if column.primary_key))
    return list({key(row): row for row in rows}.values())
