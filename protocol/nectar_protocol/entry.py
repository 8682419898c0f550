"""An entry of a ledger's log: what happened to credits, in the order in which it counts.

    format 1 = 1 | kind 1 | zero 2 | time ms 8 | body of the kind

What must not be public yet, or ever, is a **sealed part**, salt 32 | content: the entry has its SHA-256, and whoever
keeps the part can show it.
"""

import hashlib
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import (
    BindPayee,
    ChangePayee,
    Dispute,
    FundPurse,
    Grant,
    PublishModel,
    PublishPolicy,
    SetKey,
    WithdrawPurse,
    parse_command,
)
from nectar_protocol.entries import (
    SETTLEMENT,
    BatchClosed,
    Emitted,
    EpochClosed,
    Genesis,
    HoldClosed,
    HoldOpened,
    Resumed,
    Settled,
    VerdictSealed,
)
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.receipt import SIZE as RECEIPT_SIZE
from nectar_protocol.record import Record

FORMAT = 1
HEADER = struct.Struct(">BBHQ")
SETTLE_SIZE = HEADER.size + SETTLEMENT.size + RECEIPT_SIZE
SALT_SIZE = 32


class Kind(IntEnum):
    """10 to 15 and 22 on are kept for what is not built: burns, the chain's moves and anchors, corrections."""

    GENESIS = 1
    POLICY = 2
    KEY = 3
    HOLD = 4
    SETTLE = 5
    HOLD_CLOSE = 6
    VERDICT = 7
    BATCH_CLOSE = 8
    EMISSION = 9
    MODEL = 16
    EPOCH = 17
    RESUME = 18
    PURSE = 19
    DISPUTE = 20
    GRANT = 21


Body = (
    Genesis | HoldOpened | Settled | HoldClosed | VerdictSealed | BatchClosed | Emitted | EpochClosed | Resumed
    | SignedCommand
)  # fmt: skip

RECORDS: dict[Kind, type[Record]] = {
    Kind.GENESIS: Genesis,
    Kind.HOLD: HoldOpened,
    Kind.HOLD_CLOSE: HoldClosed,
    Kind.VERDICT: VerdictSealed,
    Kind.BATCH_CLOSE: BatchClosed,
    Kind.EMISSION: Emitted,
    Kind.EPOCH: EpochClosed,
    Kind.RESUME: Resumed,
}
# Kinds whose body is a signed command, verbatim.
COMMANDS: dict[Kind, tuple[type[Command], ...]] = {
    Kind.POLICY: (PublishPolicy,),
    Kind.KEY: (SetKey, BindPayee, ChangePayee),
    Kind.MODEL: (PublishModel,),
    Kind.PURSE: (FundPurse, WithdrawPurse),
    Kind.DISPUTE: (Dispute,),
    Kind.GRANT: (Grant,),
}
KINDS = {int(kind): kind for kind in Kind}
KIND_OF: dict[type[Any], Kind] = {
    Settled: Kind.SETTLE,
    **{record: kind for kind, record in RECORDS.items()},
    **{command: kind for kind, commands in COMMANDS.items() for command in commands},
}


class Entry(NamedTuple):
    """One entry of the log. `time_ms` is the sequencer's, and never falls from entry to entry."""

    kind: Kind
    time_ms: int
    body: Body


def pack_entry(time_ms: int, body: Body) -> bytes:
    """Raises MalformedError for a command that no entry carries by itself."""
    kind = KIND_OF.get(type(body.command if isinstance(body, SignedCommand) else body))
    if kind is None:
        raise MalformedError(f"no entry is a {type(body).__name__} alone")
    return HEADER.pack(FORMAT, kind, 0, time_ms) + body.pack()


def parse_entry(data: bytes) -> Entry:
    """Signatures are not verified. Raises MalformedError for anything that `pack_entry` does not make."""
    if len(data) < HEADER.size:
        raise MalformedError(f"an entry of {len(data)} bytes; it has at least {HEADER.size}")
    form, number, zero, time_ms = HEADER.unpack_from(data)
    kind = KINDS.get(number)
    if form != FORMAT or zero or kind is None:
        raise MalformedError(f"not an entry of a format and kind that are known here: {data[:4].hex()}")
    body: Body
    content = data[HEADER.size :]
    if kind is Kind.SETTLE:
        body = Settled.unpack(content)
    elif kind in COMMANDS:
        body = parse_command(content)
        if not isinstance(body.command, COMMANDS[kind]):
            raise MalformedError(f"a {body.command.NAME} stands in an entry of kind {kind.name}")
    else:
        body = RECORDS[kind].unpack(content)  # type: ignore[assignment]  # the table says which record it is
    return Entry(kind, time_ms, body)


def entry_hash(entry: bytes) -> bytes:
    """SHA-256 of an entry; of the genesis it is the ledger's ID, which every signed object names."""
    return hashlib.sha256(entry).digest()


def seal(sealed: bytes) -> bytes:
    """What an entry says of a sealed part. Raises MalformedError for one without a whole salt."""
    if len(sealed) < SALT_SIZE:
        raise MalformedError(f"a sealed part begins with {SALT_SIZE} bytes of salt")
    return hashlib.sha256(sealed).digest()


def unseal(sealed: bytes, sealing: bytes) -> bytes:
    """The content of a sealed part. Raises ConflictError if it is not the one that was sealed, MalformedError."""
    if seal(sealed) != sealing:
        raise ConflictError("this is not the part that the entry has the hash of")
    return sealed[SALT_SIZE:]
