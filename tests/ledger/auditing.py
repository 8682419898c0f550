"""A ledger's database against its own log: every table is what a replay gives, every tile what the entries give."""

from typing import NamedTuple

import sqlalchemy as sa
from nectar_ledger.core.machine import Row
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_head, read_rows
from nectar_ledger.store.schema import commands, log_entries, log_tiles
from nectar_protocol.merkle import Frontier, leaf_hash
from nectar_protocol.tiles import grow

from tests.ledger.till import ENTRY, PAYMENT, TABLES, Till


class Audited(NamedTuple):
    size: int
    tables: dict[str, dict[Row, Row]]

    def seq(self, line: int) -> int:
        """The newest total of a line that is recorded."""
        row = self.tables["till_lines"].get((line,))
        return 0 if row is None else row[1]


def audit(database: Database) -> Audited:
    with database.reading.begin() as connection:
        stored = {table.name: _by_key(table, list(read_rows(connection, table))) for table in (*TABLES, commands)}
        entries = list(read_rows(connection, log_entries))
        tiles = {row[:2]: row[2] for row in read_rows(connection, log_tiles)}
        frontier, time_ms = read_head(connection)
    assert [index for index, _ in entries] == list(range(frontier.size))
    again = Frontier()
    assert tiles == grow(again, (leaf_hash(entry) for _, entry in entries))
    assert again.root() == frontier.root()
    times = [ENTRY.unpack(entry)[1] for _, entry in entries]
    assert times == sorted(times)
    assert time_ms == (times[-1] if times else 0)
    assert stored == _replay(entries)
    paid = {(unpacked[5],) for _, entry in entries if (unpacked := ENTRY.unpack(entry))[0] == PAYMENT}
    assert set(stored["commands"]) == paid
    totals = sum(row[2] for row in stored["till_lines"].values())
    assert totals == sum(row[1] - row[2] for row in stored["till_accounts"].values()), "money was made or lost"
    return Audited(frontier.size, stored)


def _replay(entries: list[Row]) -> dict[str, dict[Row, Row]]:
    till = Till(lambda name: iter(()), 0, 0)
    tables: dict[str, dict[Row, Row]] = {table.name: {} for table in (*TABLES, commands)}
    for index, entry in entries:
        till.apply(index, entry)
        for name, row in till.take_rows():
            tables[name][row[:1]] = row
    return tables


def _by_key(table: sa.Table, rows: list[Row]) -> dict[Row, Row]:
    return {row[: len(table.primary_key)]: row for row in rows}
