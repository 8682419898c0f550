"""Whatever is changed in a ledger's tables, an audit names the table and the row."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.tables import Comparison
from nectar_ledger.audit.verify import verify
from nectar_ledger.core.machine import Row
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import commands
from nectar_ledger.store.tables import TABLES, accounts, hold_lines, purse_lines, transfers

from tests.ledger.engines import Place
from tests.ledger.forge import live_a_day

ALL = (*TABLES, commands)


def other(value: object, column: sa.Column[Any]) -> object:
    """Another value that the column takes."""
    match value:
        case None:
            return b"\0" if isinstance(column.type, sa.LargeBinary) else 1
        case bool():
            return not value
        case int():
            return value + 1
        case bytes():
            return bytes([value[0] ^ 0x80]) + value[1:] if value else b"\0"
    return f"{value}x"


def spoil(database: Database, statement: sa.Executable) -> None:
    """Past the constraints that SQLite would check."""
    with database.writing.begin() as connection:
        if database.writing.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement)


def last_row(database: Database, table: sa.Table) -> tuple[Row, sa.ColumnElement[bool]]:
    """And the condition that names it."""
    order = [column.desc() for column in table.primary_key]
    with database.reading.begin() as connection:
        row = connection.execute(sa.select(table).order_by(*order).limit(1)).one()
    return tuple(row), sa.and_(*(column == row._mapping[column] for column in table.primary_key))


def low(column: sa.Column[Any]) -> object:
    return b"\0" if isinstance(column.type, sa.LargeBinary) else -1


def place_of(table: sa.Table, row: Row) -> str:
    key = [value for column, value in zip(table.columns, row, strict=True) if column.primary_key]
    return f"{table.name} {'/'.join(value.hex() if isinstance(value, bytes) else str(value) for value in key)}"


@pytest.mark.parametrize("position", range(max(len(table.columns) for table in ALL)))
def test_another_value_is_found(spoiled: Database, position: int) -> None:
    """In the last row of every table that has so many columns."""
    wrong = set()
    for table in ALL:
        if position < len(table.columns):
            row, is_it = last_row(spoiled, table)
            column = list(table.columns)[position]
            spoil(spoiled, sa.update(table).where(is_it).values({column.name: other(row[position], column)}))
            wrong.add(table.name)
    report = verify(spoiled, signatures=False)
    assert {finding.place.split()[0] for finding in report.findings} == wrong


def test_missing_rows_are_found(spoiled: Database) -> None:
    due = set()
    for table in ALL:
        row, is_it = last_row(spoiled, table)
        spoil(spoiled, sa.delete(table).where(is_it))
        due.add(place_of(table, row))
    assert {finding.place for finding in verify(spoiled, signatures=False).findings} == due


def test_rows_too_many_are_found(spoiled: Database) -> None:
    """Before all others: new rows of the lowest keys."""
    due = set()
    for table in ALL:
        row, _ = last_row(spoiled, table)
        added = tuple(
            low(column) if column.primary_key else value if column.nullable else other(value, column)
            for column, value in zip(table.columns, row, strict=True)
        )
        spoil(spoiled, sa.insert(table).values(added))
        due.add(place_of(table, added))
    assert {finding.place for finding in verify(spoiled, signatures=False).findings} == due


def test_every_table_is_compared_on_either_engine(place: Place, tmp_path: Path) -> None:
    database = place.create()
    _, note = live_a_day(database, tmp_path)
    report = verify(database, note)
    assert report.findings == []
    assert {f"rows of {table.name}" for table in ALL} <= report.checked.keys()
    due = set()
    for table in (accounts, hold_lines, purse_lines, transfers, commands):
        row, is_it = last_row(database, table)
        spoil(database, sa.delete(table).where(is_it))
        due.add(place_of(table, row))
    assert {finding.place for finding in verify(database, note).findings} == due


def test_findings_name_the_entry_and_both_values(spoiled: Database) -> None:
    (id, _, _, amount_ucr, *_), is_it = last_row(spoiled, transfers)
    spoil(spoiled, sa.update(transfers).where(is_it).values(amount_ucr=amount_ucr + 5))
    (finding,) = verify(spoiled, signatures=False).findings
    assert finding.index == id >> 8
    assert finding.message == f"amount_ucr is {amount_ucr + 5}, not {amount_ucr}"
    assert str(finding) == f"entry {id >> 8}, transfers {id}: {finding.message}"


def test_thousands_of_rows_gone_are_counted_and_the_first_thousand_kept(spoiled: Database) -> None:
    report = Report()
    comparison = Comparison(transfers, iter([]), report)
    comparison.expect([(id, 1, 2, 3, 4, 5, 6) for id in range(3_000)])
    comparison.finish()
    assert (report.found, len(report.findings)) == (3_000, 1_000)


@given(st.lists(st.integers(0, 60), unique=True), st.lists(st.integers(0, 60), unique=True), st.integers(1, 7))
def test_a_comparison_finds_exactly_the_difference(due: list[int], stored: list[int], step: int) -> None:
    """However rows come: each number is one, and odd ones differ in another column too where both have them."""
    report = Report()
    rows: list[Row] = [(id, 1, 2, 3, 4, 5, 6) for id in sorted(due)]
    kept: list[Row] = [(id, 1, 2, 3, 4, 5, 6 + id % 2) for id in sorted(stored)]
    comparison = Comparison(transfers, iter(kept), report)
    for start in range(0, len(rows), step):
        comparison.expect(rows[start : start + step])
    comparison.finish()
    both = set(due) & set(stored)
    wrong = set(due) ^ set(stored) | {id for id in both if id % 2}
    assert sorted(finding.place for finding in report.findings) == sorted(f"transfers {id}" for id in wrong)
