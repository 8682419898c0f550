"""Purses and what moved them. PRIVATE: for the account's owner alone, who has signed the request."""

from dataclasses import dataclass

import sqlalchemy as sa

from nectar_ledger.core.accounts import Code
from nectar_ledger.store.schema import log_entries
from nectar_ledger.store.tables import purse_lines, purses
from nectar_ledger.store.views.page import Page, Window
from nectar_ledger.store.views.parts import head, hold_id, time_ms


@dataclass(frozen=True, slots=True)
class PurseRow:
    """`open_holds`: how many are open now."""

    debits_ucr: int
    credits_ucr: int
    open_holds: int

    @property
    def balance_ucr(self) -> int:
        return self.credits_ucr - self.debits_ucr


@dataclass(frozen=True, slots=True)
class PurseLine:
    """What an entry moved into a purse or out of it; `hold` is the hold that it was for, if it was for one."""

    index: int
    time_ms: int
    code: Code
    amount_ucr: int
    balance_ucr: int
    hold: bytes | None


def find_purse(connection: sa.Connection, account: int) -> PurseRow:
    """An account that has never funded it has an empty one."""
    columns = (purses.c.debits, purses.c.credits, purses.c.holds)
    row = connection.execute(sa.select(*columns).where(purses.c.account_id == account)).one_or_none()
    return PurseRow(0, 0, 0) if row is None else PurseRow(*row)


def list_purse_lines(connection: sa.Connection, account: int, window: Window) -> Page[PurseLine]:
    page = window.select(
        sa.select(purse_lines).where(purse_lines.c.account_id == account), purse_lines.c.idx
    ).subquery()
    statement = sa.select(page.c.idx, page.c.code, page.c.amount_ucr, page.c.balance_ucr, head).join(
        log_entries, log_entries.c.idx == page.c.idx
    )
    rows = connection.execute(window.order(statement, page.c.idx))
    lines = [
        PurseLine(index, time_ms(start), Code(code), amount_ucr, balance_ucr, hold_id(start))
        for index, code, amount_ucr, balance_ucr, start in rows
    ]
    return window.page(lines, lambda line: line.index)
