"""Should the core itself miscount, an audit's own sums show it."""

import copy

import pytest
from nectar_ledger.audit.replay import Replay, RowsByTable
from nectar_ledger.audit.report import Report, Supply
from nectar_ledger.audit.sums import Balances, Lines, Purses
from nectar_ledger.core.accounts import AccountKind
from nectar_ledger.core.machine import Row
from nectar_ledger.store.scan import Part
from nectar_ledger.store.schema import metadata

from tests.ledger.audit_ground import Lived

# Of each table what is summed up, or is a sum.
SUMMED = {
    "transfers": ("amount_ucr", "debit_after", "credit_after"),
    "accounts": ("debits", "credits"),
    "settlements": ("units", "paid_ucr", "fee_ucr"),
    "hold_lines": ("units",),
    "batches": ("units", "free_units"),
    "purse_lines": ("amount_ucr", "balance_ucr"),
    "purses": ("debits", "credits"),
}
CASES = [(table, column) for table, columns in SUMMED.items() for column in columns]


@pytest.fixture
def parts(lived: Lived) -> list[RowsByTable]:
    """What the town's entries gave, one part for each."""
    replay, parts = Replay(), []
    for index, draft in enumerate(lived.drafts):
        sealed = {} if draft.sealed is None else {index: draft.sealed}
        replay.take(Part(index, [draft.entry], sealed))
        parts.append(replay.take_rows())
    return parts


def sum_up(parts: list[RowsByTable]) -> tuple[Report, Supply]:
    report = Report()
    balances, lines, purses = Balances(report), Lines(report), Purses(report)
    for part in parts:
        balances.take(part)
        lines.take(part)
        purses.take(part)
    supply = balances.finish()
    purses.finish(supply.pool_ucr)
    return report, supply


def joined(parts: list[RowsByTable]) -> RowsByTable:
    """As one part: of rows that are put over others the last."""
    tables: RowsByTable = {}
    for part in parts:
        for name, rows in part.items():
            key = len(metadata.tables[name].primary_key)
            merged = {row[:key]: row for row in (*tables.get(name, ()), *rows)}
            tables[name] = list(merged.values())
    return tables


def test_sums_of_what_the_core_gives_are_right(parts: list[RowsByTable]) -> None:
    one_by_one, at_once = sum_up(parts), sum_up([joined(parts)])
    assert one_by_one[0].findings == at_once[0].findings == []
    supply = one_by_one[1]
    assert supply == at_once[1]
    balances_ucr = supply.wallets_ucr + supply.pool_ucr + supply.holds_ucr + supply.batches_ucr
    assert supply.emitted_ucr - supply.burned_ucr == balances_ucr > 0


@pytest.mark.parametrize(("table", "column"), CASES)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_wrong_sum_is_found(parts: list[RowsByTable], table: str, column: str, by: int) -> None:
    """In whichever row of the table it is."""
    at = list(metadata.tables[table].columns.keys()).index(column)
    for number, part in enumerate(parts):
        for position, row in enumerate(part.get(table, ())):
            wrong = [*parts[:number], copy.deepcopy(part), *parts[number + 1 :]]
            wrong[number][table][position] = (*row[:at], row[at] + by, *row[at + 1 :])
            assert sum_up(wrong)[0].found, row


@pytest.mark.parametrize("table", ["accounts", "purses"])
def test_a_row_that_was_not_written_is_found(parts: list[RowsByTable], table: str) -> None:
    for number, part in enumerate(parts):
        moved = part.get("transfers" if table == "accounts" else "purse_lines")
        for position in range(len(part.get(table, ())) if moved else 0):
            wrong = [*parts[:number], copy.deepcopy(part), *parts[number + 1 :]]
            del wrong[number][table][position]
            report, _ = sum_up(wrong)
            assert report.found or is_new_and_empty(part[table][position])


def is_new_and_empty(row: Row) -> bool:
    """An account that is opened and in which nothing moves yet."""
    return row[4:6] == (0, 0)


def test_an_account_below_zero_or_closed_with_a_balance_is_found() -> None:
    report = Report()
    balances = Balances(report)
    emission = (1, AccountKind.EMISSION, None, False, 5, 0, 0, None)
    wallet = (4, AccountKind.WALLET, b"key", True, 0, 5, 1, 3)
    balances.take({"transfers": [(256, 1, 4, 5, 5, 5, 5)], "accounts": [emission, wallet]})
    assert [finding.place for finding in report.findings] == ["account 4"]
    report = Report()
    balances = Balances(report)
    balances.take({"transfers": [(256, 4, 1, 5, 5, 5, 5)], "accounts": [(1, *emission[1:4], 0, 5, 0, None)]})
    balances.take({"accounts": [(*wallet[:4], 5, 0, 1, None)]})
    assert {finding.message for finding in report.findings} >= {"its balance is -5 µcr"}
