"""Accounts by their owners' keys, and their statements: public, as the log is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.store.schema import log_entries
from nectar_ledger.store.tables import accounts, transfers
from nectar_ledger.store.views.page import Page, Window
from nectar_ledger.store.views.parts import header, time_ms


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What came in and went out since it was opened."""

    id: int
    key: bytes
    debits_ucr: int
    credits_ucr: int
    opened_index: int

    @property
    def balance_ucr(self) -> int:
        return self.credits_ucr - self.debits_ucr


@dataclass(frozen=True, slots=True)
class OtherAccount:
    """The account on the other side of a transfer; `key` is None where nobody owns it."""

    kind: AccountKind
    id: int
    key: bytes | None


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A transfer as one account has it. `id` is index << 8 | its position in the entry, the balance that after it."""

    id: int
    index: int
    time_ms: int
    code: Code
    amount_ucr: int
    balance_ucr: int
    other: OtherAccount


class _Posting(NamedTuple):
    """A transfer from one side; `volume_ucr` is all that this side has moved, with it."""

    id: int
    amount_ucr: int
    code: int
    volume_ucr: int
    other_id: int
    other_kind: int
    other_key: bytes | None
    start: bytes


def find_account(connection: sa.Connection, key: bytes) -> AccountRow | None:
    """The account that this key owns; None if the log has never named it."""
    columns = (accounts.c.id, accounts.c.owner, accounts.c.debits, accounts.c.credits, accounts.c.opened_index)
    row = connection.execute(sa.select(*columns).where(accounts.c.owner == key)).one_or_none()
    return None if row is None else AccountRow(*row)


def list_statement(connection: sa.Connection, account: AccountRow, window: Window) -> Page[StatementLine]:
    """Of an account that has just been found, in the same transaction."""
    debits = _postings(connection, window, account.id, transfers.c.debit_id, transfers.c.credit_id)
    credits = _postings(connection, window, account.id, transfers.c.credit_id, transfers.c.debit_id)
    ascending = window.after is not None
    # Where a side has nothing in or beyond the page, it stood there as now (going up) or had never moved (going down).
    debits_ucr = _before(debits, account.debits_ucr if ascending else 0)
    credits_ucr = _before(credits, account.credits_ucr if ascending else 0)
    both = [*((posting, True) for posting in debits), *((posting, False) for posting in credits)]
    lines = []
    for posting, is_debit in sorted(both):
        if is_debit:
            debits_ucr = posting.volume_ucr
        else:
            credits_ucr = posting.volume_ucr
        lines.append(_line(posting, is_debit, credits_ucr - debits_ucr))
    if not ascending:
        lines.reverse()
    return window.page(lines, lambda line: line.id)


def _postings(
    connection: sa.Connection, window: Window, account: int, side: sa.Column[int], other: sa.Column[int]
) -> Sequence[_Posting]:
    """Each side by an index of its own, which has only what statements show: hence the condition on the code."""
    volume = transfers.c.debit_after if side is transfers.c.debit_id else transfers.c.credit_after
    columns = (transfers.c.id, transfers.c.amount_ucr, transfers.c.code, volume.label("volume"), other.label("other"))
    looked_at = transfers.c.code < sa.literal(int(Code.ESCROW), literal_execute=True)
    chosen = sa.select(*columns).where(side == account, looked_at)
    page = window.select(chosen, transfers.c.id).subquery()
    # PostgreSQL shifts a BIGINT by an INTEGER alone.
    index = page.c.id.bitwise_rshift(sa.literal(8, sa.Integer(), literal_execute=True))
    statement = (
        sa.select(*page.c, accounts.c.kind, accounts.c.owner, header)
        .join(accounts, accounts.c.id == page.c.other)
        .join(log_entries, log_entries.c.idx == index)
    )
    rows: Sequence[Any] = connection.execute(statement).all()
    return [_Posting(*row) for row in rows]


def _before(postings: Iterable[_Posting], nothing_ucr: int) -> int:
    """What a side had moved before the oldest of its postings."""
    oldest = min(postings, default=None)
    return nothing_ucr if oldest is None else oldest.volume_ucr - oldest.amount_ucr


def _line(posting: _Posting, is_debit: bool, balance_ucr: int) -> StatementLine:
    return StatementLine(
        posting.id,
        posting.id >> 8,
        time_ms(posting.start),
        Code(posting.code),
        -posting.amount_ucr if is_debit else posting.amount_ucr,
        balance_ucr,
        OtherAccount(AccountKind(posting.other_kind), posting.other_id, posting.other_key),
    )
