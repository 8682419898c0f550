"""A small machine for the sequencer: running totals of lines are credited to accounts, which pay each other."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import sqlalchemy as sa
from nectar_ledger.core.machine import Accepted, Draft, Key, ReadRows, Rejected, Row
from nectar_ledger.store.schema import ADDED_ONLY, BIGINT, index_column

ACCOUNTS = 4
ENTRY = struct.Struct(">BQQQQ16s")  # kind, time, and what the kind says
TOTAL, PAYMENT = 1, 2

metadata = sa.MetaData()
lines = sa.Table(
    "till_lines",
    metadata,
    index_column("id"),
    sa.Column("seq", BIGINT, nullable=False),
    sa.Column("total", BIGINT, nullable=False),
)
accounts = sa.Table(
    "till_accounts",
    metadata,
    index_column("id"),
    sa.Column("credits", BIGINT, nullable=False),
    sa.Column("debits", BIGINT, nullable=False),
    sa.Column("last", sa.LargeBinary),
    sa.CheckConstraint("debits <= credits"),
)
postings = sa.Table(
    "till_postings",
    metadata,
    index_column("id"),
    sa.Column("credit", BIGINT, nullable=False),
    sa.Column("debit", BIGINT),
    sa.Column("amount", BIGINT, nullable=False),
    info=ADDED_ONLY,
)
TABLES = (lines, accounts, postings)


@dataclass(frozen=True)
class Total:
    """Line `line` has `total` so far: the newest counts, however often and in whatever order they come."""

    line: int
    seq: int
    total: int


@dataclass(frozen=True)
class Payment:
    id: bytes
    debit: int
    credit: int
    amount: int


@dataclass(frozen=True)
class Fault:
    """What a core must never do: raise, or make a row that the database refuses."""

    where: str


Command = Total | Payment | Fault


class Till:
    def __init__(self, read: ReadRows, size: int, time_ms: int) -> None:
        self.rows: list[tuple[str, Row]] = []
        self.lines = {row[0]: row[1:] for row in read("till_lines")}
        self.accounts = {row[0]: row[1:] for row in read("till_accounts")}

    def key(self, command: Command) -> Key | None:
        match command:
            case Payment(id, debit, credit, amount):
                return Key(id, sha256(f"{debit} {credit} {amount}".encode()).digest())
        return None

    def decide(self, command: Command, now_ms: int) -> Accepted | Rejected:
        match command:
            case Total(line, seq, total):
                last, before = self.lines.get(line, (0, 0))
                if seq <= last:
                    return Accepted((), b"superseded")
                if total < before:
                    return Rejected("total", "a total never falls")
                return Accepted((Draft(ENTRY.pack(TOTAL, now_ms, line, seq, total, bytes(16))),), b"settled")
            case Payment(id, debit, credit, amount):
                credits, debits, _ = self.accounts.get(debit, (0, 0, None))
                if credits - debits < amount:
                    return Rejected("funds", "not enough")
                return Accepted(
                    (Draft(ENTRY.pack(PAYMENT, now_ms, debit, credit, amount, id), b"sealed" + id),), b"paid"
                )
            case Fault("decide"):
                raise RuntimeError("a core with a bug")
        return Accepted((Draft(b"fault"),))

    def apply(self, index: int, entry: bytes, sealed: bytes | None = None) -> None:
        self.rows += self._apply(index, entry)

    def take_rows(self) -> Iterable[tuple[str, Row]]:
        rows, self.rows = self.rows, []
        return rows

    def _apply(self, index: int, entry: bytes) -> list[tuple[str, Row]]:
        if entry == b"fault":
            return [("till_accounts", (0, 0, 1, None))]
        kind, _, a, b, amount, id = ENTRY.unpack(entry)
        if kind == TOTAL:
            account, delta = a % ACCOUNTS, amount - self.lines.get(a, (0, 0))[1]
            self.lines[a] = b, amount
            self._move(account, delta, 0, None)
            return [
                ("till_lines", (a, b, amount)),
                self._row(account),
                ("till_postings", (index, account, None, delta)),
            ]
        self._move(a, 0, amount, id)
        self._move(b, amount, 0, id)
        key = self.key(Payment(id, a, b, amount))
        assert key is not None
        command = ("commands", (id, key.body_hash, index, b"paid"))
        return [self._row(a), self._row(b), ("till_postings", (index, b, a, amount)), command]

    def _move(self, account: int, credit: int, debit: int, last: bytes | None) -> None:
        credits, debits, before = self.accounts.get(account, (0, 0, None))
        self.accounts[account] = credits + credit, debits + debit, last or before

    def _row(self, account: int) -> tuple[str, Row]:
        return "till_accounts", (account, *self.accounts[account])
