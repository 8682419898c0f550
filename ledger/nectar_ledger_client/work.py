"""What a ledger answers about work: holds, nodes, and the batches in which their earnings wait."""

from dataclasses import dataclass
from typing import Self

from nectar_protocol.announcement import Profile
from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import Verdict, parse_command
from nectar_protocol.entries import MAX_VERDICTS
from nectar_protocol.entry import SALT_SIZE
from nectar_protocol.errors import ProtocolError
from nectar_protocol.hold import MAX_LINES
from nectar_protocol.identity import PublicKey
from nectar_protocol.receipt import SignedReceipt

from nectar_ledger_client.errors import UntrustedError
from nectar_ledger_client.fields import Fields


@dataclass(frozen=True)
class HoldLine:
    """How far a node has used its line; `receipt` is the newest that counts, settled by entry `receipt_index`."""

    node: PublicKey
    cap_units: int
    units: int
    seq: int
    final: bool
    receipt_index: int | None
    receipt: SignedReceipt | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.key("node"), fields.uint("cap_units"), fields.uint("units"), fields.uint("seq"),
            fields.flag("final"), fields.optional("receipt_index", fields.index),
            fields.optional("receipt", lambda name: _receipt(fields, name)),
        )  # fmt: skip


@dataclass(frozen=True)
class HoldView:
    """A hold as everybody may see it: never who pays. `left_ucr` is what is still set aside for it."""

    id: bytes
    account: int
    session: PublicKey
    model: bytes
    model_version: int
    policy: bytes
    weight: int
    profiles: frozenset[Profile]
    revision: int
    expires_ms: int
    state: str
    opened_index: int
    revised_index: int
    closed_index: int | None
    left_ucr: int
    lines: tuple[HoldLine, ...]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.digest("id"), fields.index("account"), fields.key("session"), fields.digest("model"),
            fields.uint("model_version"), fields.digest("policy"), fields.uint("weight", 8), _profiles(fields),
            fields.uint("revision", 2**16 - 1), fields.uint("expires_ms"), fields.text("state", 32),
            fields.index("opened_index"), fields.index("revised_index"),
            fields.optional("closed_index", fields.index), fields.amount("left_ucr"),
            tuple(HoldLine.read(line) for line in fields.children("lines", MAX_LINES)),
        )  # fmt: skip


@dataclass(frozen=True)
class NodeView:
    """A node and the account that its earnings go to; `pending_ucr` waits in its open batches."""

    node: PublicKey
    payee: PublicKey
    bound_index: int
    free_units: int
    open_batches: int
    pending_ucr: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.key("node"), fields.key("payee"), fields.index("bound_index"), fields.uint("free_units"),
            fields.uint("open_batches"), fields.amount("pending_ucr"),
        )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """A node's earnings for one model that wait together until they are released or burned by entry `closed_index`."""

    id: int
    node: PublicKey
    model: bytes
    policy: bytes
    opened_ms: int
    opened_index: int
    units: int
    free_units: int
    earned_ucr: int
    state: str
    closed_index: int | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.index("id"), fields.key("node"), fields.digest("model"), fields.digest("policy"),
            fields.uint("opened_ms"), fields.index("opened_index"), fields.uint("units"), fields.uint("free_units"),
            fields.amount("earned_ucr"), fields.text("state", 32), fields.optional("closed_index", fields.index),
        )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A verdict that its auditor has signed: entry `index` has the hash of `sealed`, the salt and the verdict."""

    index: int
    sealed: bytes
    signed: SignedCommand

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Raises UntrustedError for what no auditor has signed."""
        sealed = fields.blob("sealed")
        signed = fields.packed("sealed", lambda: parse_command(sealed[SALT_SIZE:]))
        if not isinstance(signed.command, Verdict):
            raise fields.wrong("sealed", "is no verdict")
        try:
            signed.verify()
        except ProtocolError as error:
            raise UntrustedError(f"the ledger shows a verdict that its auditor has not signed: {error}") from error
        return cls(fields.index("index"), sealed, signed)


@dataclass(frozen=True)
class JudgedBatch:
    """A batch with its verdicts; they are None while it is open."""

    batch: Batch
    verdicts: tuple[Given, ...] | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        shown = fields.optional("verdicts", lambda name: fields.children(name, MAX_VERDICTS))
        return cls(Batch.read(fields), None if shown is None else tuple(map(Given.read, shown)))


@dataclass(frozen=True)
class Settlement:
    """What the receipt in entry `index` moved: `units` are those that it added to its line."""

    index: int
    time_ms: int
    hold: bytes
    node: PublicKey
    batch: int
    units: int
    paid_ucr: int
    fee_ucr: int

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            fields.index("index"), fields.uint("time_ms"), fields.digest("hold"), fields.key("node"),
            fields.index("batch"), fields.uint("units"), fields.amount("paid_ucr"), fields.amount("fee_ucr"),
        )  # fmt: skip


def _receipt(fields: Fields, name: str) -> SignedReceipt:
    packed = fields.blob(name)
    return fields.packed(name, lambda: SignedReceipt.unpack(packed))


def _profiles(fields: Fields) -> frozenset[Profile]:
    """Names of profiles, in lower case."""
    names = fields.get("profiles")
    known = {profile.name.lower(): profile for profile in Profile}
    if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
        raise fields.wrong("profiles", "is not a list of profiles")
    return frozenset(known[name] for name in names)
