"""The operator's keys with their purposes, and purses."""

from dataclasses import dataclass
from typing import ClassVar

from nectar_protocol.commands import KeyPurpose, KeyState
from nectar_protocol.identity import PublicKey

from nectar_ledger.core.accounts import Account
from nectar_ledger.errors import InvariantError


@dataclass(slots=True, eq=False)
class OperatorKey:
    """A key with a purpose; revoked ones stay, so that what they signed can be judged."""

    TABLE: ClassVar[str] = "keys"

    key: PublicKey
    purpose: KeyPurpose
    state: KeyState
    changed_index: int

    def row(self) -> tuple[object, ...]:
        return (self.key, int(self.purpose), int(self.state), self.changed_index)


@dataclass(slots=True, eq=False)
class Purse:
    """An account's private balance, inside the public pool. `holds` counts its open ones."""

    TABLE: ClassVar[str] = "purses"

    account: Account
    debits: int = 0
    credits: int = 0
    holds: int = 0

    @property
    def balance_ucr(self) -> int:
        return self.credits - self.debits

    def move(self, amount_ucr: int) -> None:
        """Into the purse, or out of it. Raises InvariantError for more than it has."""
        if amount_ucr < 0:
            self.debits -= amount_ucr
        else:
            self.credits += amount_ucr
        if self.debits > self.credits:
            raise InvariantError(f"the purse of account {self.account.id} would fall to {self.balance_ucr} µcr")

    def row(self) -> tuple[object, ...]:
        return (self.account.id, self.debits, self.credits, self.holds)
