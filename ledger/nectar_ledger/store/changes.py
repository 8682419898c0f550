"""What one transaction writes. A row that changes often is written once, as it is in the end."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from nectar_ledger.core.machine import Draft, Row
from nectar_ledger.errors import StoreError
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import ADDED_ONLY, log_entries, log_sealed, log_tiles


class Rows:
    """A machine's rows until they are written: the newest of each key, and all of those that are only added."""

    def __init__(self, tables: Mapping[str, sa.Table]) -> None:
        self._tables = tables
        self._keys = {
            name: _key_columns(table) for name, table in tables.items() if not ADDED_ONLY.items() <= table.info.items()
        }
        self._added: dict[str, list[Row]] = {}
        self._put: dict[str, dict[Row, Row]] = {}

    def add(self, rows: Iterable[tuple[str, Row]]) -> None:
        for name, row in rows:
            columns = self._keys.get(name)
            if columns is None:
                self._added.setdefault(name, []).append(row)
            else:
                self._put.setdefault(name, {})[tuple([row[column] for column in columns])] = row

    def write(self, connection: sa.Connection, database: Database) -> None:
        """And forget them. Raises StoreError for rows of a table that was not declared."""
        unknown = (self._added.keys() | self._put.keys()) - self._tables.keys()
        if unknown:
            raise StoreError(f"the core has rows for {sorted(unknown)}: declare these tables to the sequencer")
        # In the order in which the tables were declared, so that a row that others refer to is there before them.
        for name, table in self._tables.items():
            if name in self._put:
                database.put(connection, table, list(self._put[name].values()))
            if name in self._added:
                database.add(connection, table, self._added[name])
        self._added, self._put = {}, {}


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


def _key_columns(table: sa.Table) -> list[int]:
    """The positions of the primary key's columns in a row."""
    return [position for position, column in enumerate(table.columns) if column.primary_key]
