"""What the sequencer is asked to record. Signatures have been verified; nothing else has."""

from dataclasses import dataclass

from nectar_protocol.command import SignedCommand
from nectar_protocol.entries import Genesis
from nectar_protocol.receipt import SignedReceipt


@dataclass(frozen=True, slots=True)
class Begin:
    """Write the first entry, of a log that is empty."""

    genesis: Genesis


@dataclass(frozen=True, slots=True)
class Obey:
    """A signed command. `salt`: 32 random bytes for the sealed part of its entry, if that has one."""

    signed: SignedCommand
    salt: bytes


@dataclass(frozen=True, slots=True)
class Settle:
    receipt: SignedReceipt


@dataclass(frozen=True, slots=True)
class Resume:
    """The ledger is up again: it was down since the newest entry, for all that is known."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Do what is due: close an epoch, or holds whose grace is over and batches that have waited."""


Order = Begin | Obey | Settle | Resume | Tick
