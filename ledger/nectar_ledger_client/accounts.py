"""What a ledger answers about accounts: balances and statements, and purses to their owners."""

from dataclasses import dataclass
from typing import Self

from nectar_protocol.identity import PublicKey

from nectar_ledger_client.fields import Fields


@dataclass(frozen=True)
class Balance:
    """An account's public balance, with all that ever came in and went out."""

    account: PublicKey
    balance_ucr: int
    credits_ucr: int
    debits_ucr: int
    opened_index: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.key("account"), fields.amount("balance_ucr"), fields.total("credits_ucr"),
            fields.total("debits_ucr"), fields.index("opened_index"),
        )  # fmt: skip


@dataclass(frozen=True)
class OtherAccount:
    """The account on the other side of a transfer: a wallet by its key, any other by its number."""

    kind: str
    id: int
    key: PublicKey | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(fields.text("kind", 32), fields.index("id"), fields.optional("key", fields.key))


@dataclass(frozen=True)
class StatementLine:
    """A transfer that entry `index` made, as one account sees it: `amount_ucr` is negative where it paid.

    `balance_ucr` is the account's after it.
    """

    id: int
    index: int
    time_ms: int
    code: str
    amount_ucr: int
    balance_ucr: int
    other: OtherAccount

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.index("id"), fields.index("index"), fields.uint("time_ms"), fields.text("code", 32),
            fields.signed_amount("amount_ucr"), fields.amount("balance_ucr"), OtherAccount.read(fields.child("other")),
        )  # fmt: skip


@dataclass(frozen=True)
class Purse:
    """An account's private balance, with all that ever came in and went out, and how many holds are open on it."""

    balance_ucr: int
    credits_ucr: int
    debits_ucr: int
    open_holds: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.amount("balance_ucr"), fields.total("credits_ucr"), fields.total("debits_ucr"),
            fields.uint("open_holds"),
        )  # fmt: skip


@dataclass(frozen=True)
class PurseLine:
    """A movement that entry `index` made in a purse, for `hold` if for one; negative where something left it."""

    index: int
    time_ms: int
    code: str
    amount_ucr: int
    balance_ucr: int
    hold: bytes | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.index("index"), fields.uint("time_ms"), fields.text("code", 32), fields.signed_amount("amount_ucr"),
            fields.amount("balance_ucr"), fields.optional("hold", fields.digest),
        )  # fmt: skip
