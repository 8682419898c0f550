"""The journal: accounts with cumulative debits and credits. What is set aside is an account of its own."""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from nectar_protocol.identity import PublicKey

from nectar_ledger.errors import InvariantError

MAX_VOLUME = 2**63 - 1


class AccountKind(IntEnum):
    EMISSION = 1
    BURNED = 2
    POOL = 3
    WALLET = 4
    HOLD = 5
    BATCH = 6


class Code(IntEnum):
    """What a transfer is for. Those below 16 are between accounts that people look at: wallets and the pool."""

    FUND = 1
    WITHDRAW = 2
    RELEASE = 3
    EMIT = 4
    GRANT = 5
    ESCROW = 16
    PAY = 17
    FEE = 18
    RETURN = 19
    BURN = 20


@dataclass(slots=True, eq=False)
class Account:
    """Only EMISSION may go below zero: what it owes is what exists."""

    TABLE: ClassVar[str] = "accounts"

    id: int
    kind: AccountKind
    owner: PublicKey | None
    opened_index: int
    debits: int = 0
    credits: int = 0
    closed_index: int | None = None

    @property
    def balance_ucr(self) -> int:
        return self.credits - self.debits

    def row(self) -> tuple[object, ...]:
        return (
            self.id, int(self.kind), self.owner, self.kind is not AccountKind.EMISSION, self.debits, self.credits,
            self.opened_index, self.closed_index,
        )  # fmt: skip


def check_posting(debit: Account, debits: int, credit: Account, credits: int) -> None:
    """What `debits` and `credits` would be after a transfer. Raises InvariantError for a balance below zero."""
    if debits > debit.credits and debit.kind is not AccountKind.EMISSION:
        raise InvariantError(f"account {debit.id} would fall to {debit.credits - debits} µcr")
    if debits > MAX_VOLUME or credits > MAX_VOLUME:
        raise InvariantError("an account's lifetime total does not fit into 64 bits")
    if debit.closed_index is not None or credit.closed_index is not None:
        raise InvariantError(f"account {debit.id} or {credit.id} is closed")
