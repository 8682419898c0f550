"""The commands of a ledger, by kind, and `parse_command`, which tells them by their magic.

A kind is its fields: they stand in the order of their declaration behind those that every command has.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Annotated, ClassVar

from nectar_protocol.announcement import MAX_BLOCKS, Profile
from nectar_protocol.codec import Reader
from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.hold import Hold, Lines, Profiles, Revision, Weight, check_extends
from nectar_protocol.identity import SIGNATURE_SIZE
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy
from nectar_protocol.record import MAX_COUNT, U16, U32, Count, Digest, Key, Nested, Uint

MAX_SIZE = 32 << 10
Amount = Annotated[int, Uint(8, MAX_COUNT, least=1)]


class KeyPurpose(IntEnum):
    """What a key may sign for the ledger's operator."""

    OPERATOR = 1
    POLICY = 2
    HOLDS = 3
    LOG = 4
    AUDITOR = 5
    ANCHOR = 6


class KeyState(IntEnum):
    ACTIVE = 1
    REVOKED = 2


class Outcome(IntEnum):
    """CONFIRMED: the same evidence failed a second re-execution too. MISSING: the node could not produce its own."""

    PASSED = 1
    FAILED = 2
    CONFIRMED = 3
    MISSING = 4


@dataclass(frozen=True)
class OpenHold(Command):
    """Asks for a hold, paid from the payer's purse. A free one (weight 0) has no payer but its session's own key.

    Its body's hash is the hold's id, which receipts make public: only a random command id hides the payer behind it.
    """

    MAGIC: ClassVar[bytes] = b"NECOPEN1"
    NAME: ClassVar[str] = "open-hold"
    SIGNERS: ClassVar[tuple[str, ...]] = ("payer",)

    payer: Key
    session: Key
    model: Digest
    policy: Digest
    hold_expires_ms: Count
    weight: Weight
    profiles: Profiles
    lines: Lines

    def check(self) -> None:
        if (self.payer == self.session) != (self.weight == 0):
            raise MalformedError("a hold of weight 0 is asked for by its session's key, any other by its payer's")

    def hold(self) -> Hold:
        """What the ledger signs where it agrees."""
        return Hold(
            self.ledger, self.body_hash, self.session, self.model, self.policy, self.hold_expires_ms, 1, self.weight,
            self.profiles, self.lines,
        )  # fmt: skip


@dataclass(frozen=True)
class ExtendHold(Command):
    """Asks for a later revision of a hold, with all its lines as they shall be. The payer is the one who opened it."""

    MAGIC: ClassVar[bytes] = b"NECXTND1"
    NAME: ClassVar[str] = "extend-hold"
    SIGNERS: ClassVar[tuple[str, ...]] = ("payer",)

    payer: Key
    hold: Digest
    hold_expires_ms: Count
    revision: Revision
    lines: Lines

    def revised(self, hold: Hold) -> Hold:
        """What the ledger signs where it agrees. Raises ConflictError for another hold or what takes something back."""
        if (self.ledger, self.hold) != (hold.ledger, hold.id):
            raise ConflictError("this extends another hold")
        new = replace(hold, expires_ms=self.hold_expires_ms, revision=self.revision, lines=self.lines)
        check_extends(hold, new)
        return new


@dataclass(frozen=True)
class CloseHold(Command):
    """Gives back what final receipts leave of a hold's lines; the others wait for theirs or for the end of grace."""

    MAGIC: ClassVar[bytes] = b"NECCLOS1"
    NAME: ClassVar[str] = "close-hold"
    SIGNERS: ClassVar[tuple[str, ...]] = ("session",)

    session: Key
    hold: Digest


@dataclass(frozen=True)
class BindPayee(Command):
    """Binds a node that has no payee yet: its earnings are released to `payee`."""

    MAGIC: ClassVar[bytes] = b"NECBIND1"
    NAME: ClassVar[str] = "bind-payee"
    SIGNERS: ClassVar[tuple[str, ...]] = ("node", "payee")

    node: Key
    payee: Key

    def check(self) -> None:
        if self.payee == self.node:
            raise MalformedError("a node's key earns and never spends; its payee is another key")


@dataclass(frozen=True)
class ChangePayee(Command):
    """Binds a node to another payee. The node's own key has no say: who steals it earns nothing."""

    MAGIC: ClassVar[bytes] = b"NECCHNG1"
    NAME: ClassVar[str] = "change-payee"
    SIGNERS: ClassVar[tuple[str, ...]] = ("payee", "successor")

    node: Key
    payee: Key
    successor: Key

    def check(self) -> None:
        if self.successor in (self.payee, self.node):
            raise MalformedError("the new payee is the old one, or the node itself")


@dataclass(frozen=True)
class FundPurse(Command):
    """Moves a round amount from an account's public balance into its purse."""

    MAGIC: ClassVar[bytes] = b"NECFUND1"
    NAME: ClassVar[str] = "fund-purse"
    SIGNERS: ClassVar[tuple[str, ...]] = ("account",)

    account: Key
    amount_ucr: Amount


@dataclass(frozen=True)
class WithdrawPurse(Command):
    """Moves a round amount from an account's purse back into its public balance."""

    MAGIC: ClassVar[bytes] = b"NECDRAW1"
    NAME: ClassVar[str] = "withdraw-purse"
    SIGNERS: ClassVar[tuple[str, ...]] = ("account",)

    account: Key
    amount_ucr: Amount


@dataclass(frozen=True)
class Grant(Command):
    """Emits credits to an account, within what the policy allows in an epoch."""

    MAGIC: ClassVar[bytes] = b"NECGRNT1"
    NAME: ClassVar[str] = "grant"
    SIGNERS: ClassVar[tuple[str, ...]] = ("operator",)

    operator: Key
    account: Key
    amount_ucr: Amount


@dataclass(frozen=True)
class SetKey(Command):
    """Lets a key sign for a purpose, or no longer."""

    MAGIC: ClassVar[bytes] = b"NECSETK1"
    NAME: ClassVar[str] = "set-key"
    SIGNERS: ClassVar[tuple[str, ...]] = ("operator",)

    operator: Key
    key: Key
    purpose: Annotated[KeyPurpose, Uint(1, max(KeyPurpose), min(KeyPurpose), KeyPurpose)]
    state: Annotated[KeyState, Uint(1, max(KeyState), min(KeyState), KeyState)]


@dataclass(frozen=True)
class PublishPolicy(Command):
    """A new version of the policy, for holds and batches opened from now on."""

    MAGIC: ClassVar[bytes] = b"NECPUBP1"
    NAME: ClassVar[str] = "publish-policy"
    SIGNERS: ClassVar[tuple[str, ...]] = ("publisher",)

    publisher: Key
    policy: Annotated[Policy, Nested(Policy)]


@dataclass(frozen=True)
class PublishModel(Command):
    """A new version of a model's entry, for holds opened from now on."""

    MAGIC: ClassVar[bytes] = b"NECPUBM1"
    NAME: ClassVar[str] = "publish-model"
    SIGNERS: ClassVar[tuple[str, ...]] = ("publisher",)

    publisher: Key
    entry: Annotated[ModelEntry, Nested(ModelEntry)]


@dataclass(frozen=True)
class Verdict(Command):
    """What an auditor found in one probe of a node's batch.

    `error_ppm` is the error of the audited tokens relative to the span's update, `limit_ppm` what it was held against;
    `evidence` is the SHA-256 of what anybody with the weights can run again.
    """

    MAGIC: ClassVar[bytes] = b"NECVRDT1"
    NAME: ClassVar[str] = "verdict"
    SIGNERS: ClassVar[tuple[str, ...]] = ("auditor",)

    auditor: Key
    node: Key
    batch: Count
    hold: Digest
    start: U16
    stop: U16
    profile: Annotated[Profile, Uint(2, max(Profile), 0, Profile)]
    outcome: Annotated[Outcome, Uint(1, max(Outcome), min(Outcome), Outcome)]
    tokens: U32
    error_ppm: U32
    limit_ppm: U32
    evidence: Digest

    def check(self) -> None:
        if not self.start < self.stop <= MAX_BLOCKS:
            raise MalformedError(f"[{self.start}, {self.stop}) is not a span of blocks")


@dataclass(frozen=True)
class Dispute(Command):
    """Discloses a session's own evidence against a node, by the session's key."""

    MAGIC: ClassVar[bytes] = b"NECDISP1"
    NAME: ClassVar[str] = "dispute"
    SIGNERS: ClassVar[tuple[str, ...]] = ("session",)

    session: Key
    hold: Digest
    node: Key
    evidence: Digest


KINDS: tuple[type[Command], ...] = (
    OpenHold, ExtendHold, CloseHold, BindPayee, ChangePayee, FundPurse, WithdrawPurse, Grant, SetKey, PublishPolicy,
    PublishModel, Verdict, Dispute,
)  # fmt: skip
BY_MAGIC = {kind.MAGIC: kind for kind in KINDS}


def parse_command(data: bytes) -> SignedCommand:
    """The command and its signatures, not verified yet. Raises MalformedError."""
    if len(data) > MAX_SIZE:
        raise MalformedError(f"a command of {len(data)} bytes; at most {MAX_SIZE} are read")
    kind = BY_MAGIC.get(bytes(data[:8]))
    if kind is None:
        raise MalformedError(f"no command begins with {data[:8].hex()}")
    reader = Reader(data)
    command = kind.read(reader)
    signatures = tuple(reader.take(SIGNATURE_SIZE) for _ in kind.SIGNERS)
    reader.end()
    return SignedCommand(command, signatures)
