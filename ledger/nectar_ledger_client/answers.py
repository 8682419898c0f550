"""What a ledger answers, typed. These are its words: what is signed in them was checked where they say so."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from nectar_protocol.entry import Entry, parse_entry
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import PublicKey
from nectar_protocol.note import NoteKey

from nectar_ledger_client.errors import UntrustedError
from nectar_ledger_client.fields import Fields


@dataclass(frozen=True)
class LedgerInfo:
    """A ledger of itself: its ID, its keys, the ID of its policy, and how long its log is."""

    ledger: bytes
    network: str
    log_key: NoteKey
    holds_key: PublicKey
    policy: bytes
    size: int
    time_ms: int
    version: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        log_key = fields.packed("log_key", lambda: NoteKey.parse(fields.text("log_key")))
        return cls(
            fields.digest("ledger"), fields.text("network"), log_key, fields.key("holds_key"), fields.digest("policy"),
            fields.index("size"), fields.uint("time_ms"), fields.text("version"),
        )  # fmt: skip


@dataclass(frozen=True)
class CommandAnswer:
    """The entry that a command became, None where it changed nothing; `hold` is what the ledger promised, verified."""

    index: int | None
    hold: SignedHold | None


class ReceiptStatus(StrEnum):
    """SUPERSEDED: the line has had this receipt or a newer one."""

    SETTLED = "settled"
    SUPERSEDED = "superseded"
    REFUSED = "refused"


@dataclass(frozen=True)
class ReceiptAnswer:
    """What became of one receipt: its entry's `index` where it settled, `code` and `message` where it was refused."""

    status: ReceiptStatus
    index: int | None = None
    code: str = ""
    message: str = ""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        match fields.text("status", 16):
            case ReceiptStatus.SETTLED:
                return cls(ReceiptStatus.SETTLED, fields.index("index"))
            case ReceiptStatus.SUPERSEDED:
                return cls(ReceiptStatus.SUPERSEDED)
            case ReceiptStatus.REFUSED:
                return cls(ReceiptStatus.REFUSED, code=fields.text("error", 64), message=fields.words("message"))
        raise fields.wrong("status", "is none that is known here")


@dataclass(frozen=True)
class LoggedEntry:
    """An entry of the log: its bytes, and what they say. Unproved; a `LogFollower` proves it."""

    index: int
    data: bytes
    entry: Entry

    @classmethod
    def read(cls, fields: Fields) -> Self:
        data = fields.blob("entry")
        return cls(fields.index("index"), data, fields.packed("entry", lambda: parse_entry(data)))


@dataclass(frozen=True)
class Supply:
    """All credits there are: emitted − burned = wallets + pool + holds + batches, in µcr."""

    emitted_ucr: int
    burned_ucr: int
    wallets_ucr: int
    pool_ucr: int
    holds_ucr: int
    batches_ucr: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Raises UntrustedError for sums that do not add up."""
        amounts = ("emitted_ucr", "burned_ucr", "wallets_ucr", "pool_ucr", "holds_ucr", "batches_ucr")
        emitted_ucr, burned_ucr, *balances = (fields.amount(name) for name in amounts)
        if emitted_ucr - burned_ucr != sum(balances):
            raise UntrustedError("the ledger's supply is not the sum of its balances: show its answer to others")
        return cls(emitted_ucr, burned_ucr, *balances)


@dataclass(frozen=True)
class SupplyNow:
    """The supply as it is, in the epoch that runs; `granted_ucr` of it was granted in this epoch."""

    supply: Supply
    epoch: int
    epoch_started_ms: int
    granted_ucr: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            Supply.read(fields), fields.uint("epoch"), fields.uint("epoch_started_ms"), fields.amount("granted_ucr")
        )


@dataclass(frozen=True)
class Epoch:
    """An epoch that has ended, its closing entry's index, and the supply at its end."""

    number: int
    index: int
    started_ms: int
    ended_ms: int
    free_units: int
    supply: Supply

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.uint("number"), fields.index("index"), fields.uint("started_ms"), fields.uint("ended_ms"),
            fields.uint("free_units"), Supply.read(fields),
        )  # fmt: skip
