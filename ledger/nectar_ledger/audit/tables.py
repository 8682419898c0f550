"""A ledger's tables beside what its log gives, row by row, in whatever order rows come out of a replay."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import sqlalchemy as sa

from nectar_ledger.audit.replay import RowsByTable
from nectar_ledger.audit.report import Report
from nectar_ledger.core.machine import Row
from nectar_ledger.store.changes import Rows
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.schema import commands
from nectar_ledger.store.tables import (
    TABLES,
    disputes,
    epochs,
    outages,
    policies,
    settlements,
    transfers,
    verdicts,
)

# A replay adds their rows in the order of their keys, so that they need not be kept to be compared.
IN_ORDER = (transfers, settlements, verdicts, disputes, policies, epochs, outages)
KEPT = tuple(table for table in TABLES if table not in IN_ORDER)
ROWS_AT_ONCE, ROWS_IN_MEMORY = 1000, 50_000
# The newest entry that a row says it comes from.
ENTRY_COLUMNS = (
    "idx", "log_index", "closed_index", "receipt_index", "revised_index", "changed_index", "bound_index",
    "opened_index",
)  # fmt: skip


class Comparison:
    """Of a table with its rows as they should be, which come in the order of its primary key."""

    def __init__(self, table: sa.Table, stored: Iterator[Row], report: Report) -> None:
        self._table, self._stored, self._report = table, stored, report
        self._key = [position for position, column in enumerate(table.columns) if column.primary_key]
        self._ahead: deque[Row] = deque()  # stored rows that have been read and not been passed

    def expect(self, rows: Sequence[Row]) -> None:
        """These come next."""
        self._report.checked[f"rows of {self._table.name}"] += len(rows)
        self._ahead.extend(islice(self._stored, max(0, len(rows) - len(self._ahead))))
        if list(self._ahead) == rows:
            self._ahead.clear()
            return
        for row in rows:
            self._expect(row)

    def finish(self) -> None:
        """Nothing comes any more."""
        for stored in chain(self._ahead, self._stored):
            self._find(stored, "the log gives no such row")

    def _expect(self, row: Row) -> None:
        while (stored := self._peek()) is not None and self._order(stored) < self._order(row):
            self._find(self._ahead.popleft(), "the log gives no such row")
        if stored is None or self._order(stored) != self._order(row):
            self._find(row, "the row is missing")
        elif self._ahead.popleft() != row:
            named = zip(self._table.columns, stored, row, strict=True)
            differ = [f"{column.name} is {_text(is_)}, not {_text(due)}" for column, is_, due in named if is_ != due]
            self._find(row, "; ".join(differ))

    def _peek(self) -> Row | None:
        if not self._ahead:
            self._ahead.extend(islice(self._stored, 1))
        return self._ahead[0] if self._ahead else None

    def _order(self, row: Row) -> list[tuple[bool, object]]:
        """As databases sort: bytes after numbers."""
        return [(isinstance(row[position], bytes), row[position]) for position in self._key]

    def _find(self, row: Row, message: str) -> None:
        key = "/".join(_text(row[position]) for position in self._key)
        self._report.find(f"{self._table.name} {key}", message, self._entry(row))

    def _entry(self, row: Row) -> int | None:
        if self._table is transfers:
            return row[0] >> 8 if isinstance(row[0], int) else None
        by_name = dict(zip(self._table.columns.keys(), row, strict=True))
        found = (by_name.get(name) for name in ENTRY_COLUMNS)
        return next((index for index in found if isinstance(index, int)), None)


class Tables:
    """All of the core's, and the answers to commands.

    `scratch` has the tables of KEPT, and that of commands, which another keeps.
    """

    def __init__(
        self, connection: sa.Connection, scratch: Database, scratch_connection: sa.Connection, report: Report
    ) -> None:
        self._connection, self._report = connection, report
        self._scratch, self._scratch_connection = scratch, scratch_connection
        self._in_order = {table.name: Comparison(table, read_rows(connection, table), report) for table in IN_ORDER}
        self._kept = Rows({table.name: table for table in KEPT})
        self._waiting = 0

    def take(self, tables: RowsByTable) -> None:
        for name, rows in tables.items():
            if name in self._in_order:
                self._in_order[name].expect(rows)
            elif name != commands.name:
                self._kept.add((name, row) for row in rows)
                self._waiting += len(rows)
        if self._waiting > ROWS_IN_MEMORY:
            self._flush()

    def finish(self) -> None:
        """The log has no more entries."""
        self._flush()
        for comparison in self._in_order.values():
            comparison.finish()
        for table in (*KEPT, commands):
            comparison = Comparison(table, read_rows(self._connection, table), self._report)
            due = read_rows(self._scratch_connection, table)
            while rows := list(islice(due, ROWS_AT_ONCE)):
                comparison.expect(rows)
            comparison.finish()

    def _flush(self) -> None:
        self._kept.write(self._scratch_connection, self._scratch)
        self._waiting = 0


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
