"""What the entries of a ledger's log hold, by kind; `entry` is how they stand in it.

What somebody signed stands in them as it was signed. Amounts that follow from an entry stand in it too: whoever replays
a log computes them and compares.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Annotated, NamedTuple

from nectar_protocol.codec import Reader, uint
from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import CloseHold, parse_command
from nectar_protocol.errors import MalformedError
from nectar_protocol.hold import SignedHold
from nectar_protocol.note import check_name
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import SIZE as RECEIPT_SIZE
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.record import MAX_COUNT, Count, Digest, Key, Nested, Record, Uint

SETTLEMENT = struct.Struct(">QQQQ")
MAX_NETWORK = 128
MAX_SHARES = 255
MAX_VERDICTS = 64


class Network:
    """Codec of a ledger's name, which is its log's origin: length 1 | UTF-8."""

    def check(self, value: str, name: str) -> None:
        check_name(value)
        if len(value.encode()) > MAX_NETWORK:
            raise MalformedError(f"{name} has at most {MAX_NETWORK} bytes")

    def pack(self, value: str) -> bytes:
        return uint(len(value.encode()), 1, "name length") + value.encode()

    def read(self, reader: Reader) -> str:
        return reader.text(reader.uint(1))


@dataclass(frozen=True)
class Genesis(Record):
    """The first entry: the ledger's name, its keys and its first policy. SHA-256 of the whole entry is its ID."""

    network: Annotated[str, Network()]
    operator: Key
    publisher: Key
    holds: Key
    log: Key
    policy: Annotated[Policy, Nested(Policy)]


class HoldBytes:
    """Codec: length 2 | signed hold."""

    def check(self, value: SignedHold, name: str) -> None:
        pass

    def pack(self, value: SignedHold) -> bytes:
        packed = value.pack()
        return uint(len(packed), 2, "hold length") + packed

    def read(self, reader: Reader) -> SignedHold:
        return SignedHold.unpack(reader.take(reader.uint(2)))


@dataclass(frozen=True)
class HoldOpened(Record):
    """A hold or a later revision of one; `seal` is over the signed request, which names who pays."""

    hold: Annotated[SignedHold, HoldBytes()]
    seal: Digest


class Settled(NamedTuple):
    """A line's newest receipt, and what it moves: from the hold's account to the batch's, and to be burned."""

    hold_account: int
    batch_account: int
    paid_ucr: int
    fee_ucr: int
    receipt: SignedReceipt

    def pack(self) -> bytes:
        return SETTLEMENT.pack(*self[:-1]) + self.receipt.pack()

    @classmethod
    def unpack(cls, data: bytes) -> "Settled":
        """Raises MalformedError."""
        if len(data) != SETTLEMENT.size + RECEIPT_SIZE:
            raise MalformedError(f"a settlement of {len(data)} bytes; it has {SETTLEMENT.size + RECEIPT_SIZE}")
        hold, batch, paid, fee = SETTLEMENT.unpack_from(data)
        if max(hold, batch, paid, fee) > MAX_COUNT:
            raise MalformedError(f"accounts and amounts of a settlement are 0 to {MAX_COUNT}")
        return cls(hold, batch, paid, fee, SignedReceipt.unpack(data[SETTLEMENT.size :]))


class CloseReason(IntEnum):
    """FINAL: the last line's final receipt. ASKED: its session asked. EXPIRED: its grace is over."""

    FINAL = 1
    ASKED = 2
    EXPIRED = 3


class OptionalCommand:
    """Codec: length 2, and that many bytes of a signed command; none is length 0."""

    def __init__(self, kind: type[Command]) -> None:
        self.kind = kind

    def check(self, value: SignedCommand | None, name: str) -> None:
        if value is not None and not isinstance(value.command, self.kind):
            raise MalformedError(f"{name} is not a {self.kind.__name__}")

    def pack(self, value: SignedCommand | None) -> bytes:
        packed = b"" if value is None else value.pack()
        return uint(len(packed), 2, "command length") + packed

    def read(self, reader: Reader) -> SignedCommand | None:
        packed = reader.take(reader.uint(2))
        return parse_command(packed) if packed else None


@dataclass(frozen=True)
class HoldClosed(Record):
    """What goes back to the pool, and into the purse that the hold was paid from.

    Where `whole` is false, the hold stays open and only lines with a final receipt have given back.
    """

    hold: Digest
    account: Count
    released_ucr: Count
    reason: Annotated[CloseReason, Uint(1, max(CloseReason), min(CloseReason), CloseReason)]
    whole: Annotated[bool, Uint(1, 1, 0, bool)]
    asked: Annotated[SignedCommand | None, OptionalCommand(CloseHold)] = None

    def check(self) -> None:
        if (self.asked is not None) != (self.reason is CloseReason.ASKED):
            raise MalformedError("a hold is closed by its session's command, or without any")


@dataclass(frozen=True)
class VerdictSealed(Record):
    """That a verdict was given; `seal` is over the signed command, which is shown when its batch closes."""

    seal: Digest


class BatchOutcome(IntEnum):
    RELEASED = 1
    BURNED = 2


class SealedVerdicts:
    """Codec: count 2 | (index of the verdict's entry 8, length 2, sealed part)*, by index."""

    def check(self, value: tuple[tuple[int, bytes], ...], name: str) -> None:
        if len(value) > MAX_VERDICTS or any(a >= b for (a, _), (b, _) in pairwise(value)):
            raise MalformedError(f"a batch closes with at most {MAX_VERDICTS} verdicts, in the order of their entries")

    def pack(self, value: tuple[tuple[int, bytes], ...]) -> bytes:
        return uint(len(value), 2, "verdict count") + b"".join(
            uint(index, 8, "index") + uint(len(sealed), 2, "verdict length") + sealed for index, sealed in value
        )

    def read(self, reader: Reader) -> tuple[tuple[int, bytes], ...]:
        return tuple((reader.uint(8), reader.take(reader.uint(2))) for _ in range(reader.uint(2)))


@dataclass(frozen=True)
class BatchClosed(Record):
    """A node's earnings go to its payee, or are burned. Its verdicts are shown: each sealed part, with its entry."""

    account: Count
    outcome: Annotated[BatchOutcome, Uint(1, max(BatchOutcome), min(BatchOutcome), BatchOutcome)]
    amount_ucr: Count
    verdicts: Annotated[tuple[tuple[int, bytes], ...], SealedVerdicts()] = ()


class EmissionTo(IntEnum):
    PAYEES = 1
    PURSES = 2


@dataclass(frozen=True)
class Share(Record):
    """To PAYEES: a node, its free units and its payee. To PURSES: an auditor, 0 and itself."""

    earner: Key
    account: Key
    units: Count
    amount_ucr: Count


class Shares:
    """Codec: count 2 | shares*."""

    def check(self, value: tuple[Share, ...], name: str) -> None:
        if not 0 < len(value) <= MAX_SHARES:
            raise MalformedError(f"an emission has 1 to {MAX_SHARES} shares; more go into another entry")

    def pack(self, value: tuple[Share, ...]) -> bytes:
        return uint(len(value), 2, "share count") + b"".join(share.pack() for share in value)

    def read(self, reader: Reader) -> tuple[Share, ...]:
        return tuple(Share.read(reader) for _ in range(reader.uint(2)))


@dataclass(frozen=True)
class Emitted(Record):
    """Credits that come to be for one epoch, in one or more entries just before the epoch's own."""

    epoch: Count
    to: Annotated[EmissionTo, Uint(1, max(EmissionTo), min(EmissionTo), EmissionTo)]
    shares: Annotated[tuple[Share, ...], Shares()]


@dataclass(frozen=True)
class EpochClosed(Record):
    """The books at the end of an epoch: emitted − burned = wallets + pool + holds + batches."""

    number: Count
    started_ms: Count
    free_units: Count
    emitted_ucr: Count
    burned_ucr: Count
    wallets_ucr: Count
    pool_ucr: Count
    holds_ucr: Count
    batches_ucr: Count

    def check(self) -> None:
        balances = self.wallets_ucr + self.pool_ucr + self.holds_ucr + self.batches_ucr
        if self.emitted_ucr - self.burned_ucr != balances:
            raise MalformedError("emitted − burned is not the sum of all balances")


@dataclass(frozen=True)
class Resumed(Record):
    """The ledger was down since `down_from_ms`, until this entry's time; no hold's grace ran meanwhile."""

    down_from_ms: Count
