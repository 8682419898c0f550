"""A hold: credits set aside for one session, with a line for each node, signed by the ledger.

    magic 8 "NECHOLD1" | ledger 32 | hold id 32 | session key 32 | model 32 | policy 32 | expires ms 8 | revision 2 |
    weight 1 | profiles 1 | line count 2 | zero 2 | lines (server key 32, cap units 8)* | signature 64

Lines stand in ascending order of their server keys, each once, so that a hold has one encoding.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from nectar_protocol.announcement import Profile
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE, Identity, PublicKey, verify
from nectar_protocol.money import charge_ucr, check_amount
from nectar_protocol.record import MAX_COUNT, Count, Digest, Key, Record, Uint, sound

ROLE = b"nectar/hold/v1\n"
WEIGHTS = (0, 1, 2, 4, 8)
LINE = struct.Struct(">32sQ")
MAX_LINES = 256


@dataclass(frozen=True)
class Line(Record):
    """What one node may be paid for in this session, in units."""

    server: Key
    cap_units: Annotated[int, Uint(8, MAX_COUNT, least=1)]


class LineList:
    """Codec: line count 2 | zero 2 | lines*, 1 to 256 of them, ascending by server key."""

    def check(self, value: tuple[Line, ...], name: str) -> None:
        if not 0 < len(value) <= MAX_LINES:
            raise MalformedError(f"{len(value)} {name}; a hold has 1 to {MAX_LINES}")
        if any(a.server >= b.server for a, b in pairwise(value)):
            raise MalformedError(f"{name} stand in ascending order of their server keys, each once")

    def pack(self, value: tuple[Line, ...]) -> bytes:
        lines = b"".join([LINE.pack(line.server, line.cap_units) for line in value])
        return uint(len(value), 2, "line count") + bytes(2) + lines

    def read(self, reader: Reader) -> tuple[Line, ...]:
        count = reader.uint(2)
        if reader.uint(2) or count > MAX_LINES:
            raise MalformedError(f"a hold has 1 to {MAX_LINES} lines, and zeros behind their count")
        return tuple([_line(server, cap) for server, cap in LINE.iter_unpack(reader.take(count * LINE.size))])


def _line(server: PublicKey, cap_units: int) -> Line:
    """Raises MalformedError."""
    if 0 < cap_units <= MAX_COUNT:
        return sound(Line, server=server, cap_units=cap_units)
    return Line(server, cap_units)


class ProfileSet:
    """Codec: one byte, bit p for profile p; at least one."""

    SETS = tuple(frozenset(p for p in Profile if bits >> p & 1) for bits in range(1 << len(Profile)))

    def check(self, value: frozenset[Profile], name: str) -> None:
        if not value:
            raise MalformedError(f"{name} is empty; name at least one profile that may serve")

    def pack(self, value: frozenset[Profile]) -> bytes:
        return bytes([sum(1 << profile for profile in value)])

    def read(self, reader: Reader) -> frozenset[Profile]:
        bits = reader.uint(1)
        if bits >= len(self.SETS):
            raise MalformedError(f"profiles {bits:#x} have a bit that is no profile's")
        return self.SETS[bits]


class WeightByte(Uint):
    """Codec: 0, 1, 2, 4 or 8."""

    def check(self, value: int, name: str) -> None:
        if value not in WEIGHTS:
            raise MalformedError(f"{name} = {value}; it is one of {', '.join(map(str, WEIGHTS))}")


Lines = Annotated[tuple[Line, ...], LineList()]
Profiles = Annotated[frozenset[Profile], ProfileSet()]
Weight = Annotated[int, WeightByte(1, max(WEIGHTS))]
Revision = Annotated[int, Uint(2, 2**16 - 1, least=1)]


@dataclass(frozen=True)
class Hold(Record):
    """One session's credits. `id` is the SHA-256 of the request's body; `profiles` are those that may serve it."""

    MAGIC: ClassVar[bytes] = b"NECHOLD1"

    ledger: Digest
    id: Digest
    session: Key
    model: Digest
    policy: Digest
    expires_ms: Count
    revision: Revision
    weight: Weight
    profiles: Profiles
    lines: Lines

    def line(self, server: PublicKey) -> Line | None:
        """The line of this node, if there is one."""
        return next((line for line in self.lines if line.server == server), None)

    def escrow_ucr(self, price: int) -> int:
        """What all lines can cost together. Raises MalformedError over 2^53 − 1 µcr."""
        return check_amount(sum(charge_ucr(line.cap_units, self.weight, price) for line in self.lines))

    def signed(self, ledger_key: Identity) -> "SignedHold":
        return SignedHold(self, ledger_key.sign(ROLE, self.pack()))


@dataclass(frozen=True)
class SignedHold:
    """A hold with the signature of the ledger's key for holds, which the reader must know from elsewhere."""

    hold: Hold
    signature: bytes

    def pack(self) -> bytes:
        return self.hold.pack() + self.signature

    @classmethod
    def unpack(cls, data: bytes) -> "SignedHold":
        """Parse without verifying. Raises MalformedError."""
        return cls(Hold.unpack(data[:-SIGNATURE_SIZE]), bytes(data[-SIGNATURE_SIZE:]))

    def verify(self, ledger_key: PublicKey) -> None:
        """Raises SignatureError unless the ledger signed it."""
        verify(ledger_key, ROLE, self.hold.pack(), self.signature)


def sorted_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Lines in the order of a hold."""
    return tuple(sorted(lines, key=lambda line: line.server))


def check_extends(old: Hold, new: Hold) -> None:
    """Raise ConflictError, with every reason, unless `new` only adds lines, raises caps or extends the expiry."""
    same = ("ledger", "id", "session", "model", "policy", "weight", "profiles")
    reasons = [f"another {name}" for name in same if getattr(old, name) != getattr(new, name)]
    if new.revision <= old.revision:
        reasons.append(f"revision {new.revision} after {old.revision}")
    if new.expires_ms < old.expires_ms:
        reasons.append(f"it expires {old.expires_ms - new.expires_ms} ms earlier")
    caps = {line.server: line.cap_units for line in new.lines}
    for line in old.lines:
        if line.server not in caps:
            reasons.append(f"the line of {line.server.hex()} is gone")
        elif caps[line.server] < line.cap_units:
            reasons.append(f"the cap of {line.server.hex()} falls from {line.cap_units} to {caps[line.server]}")
    if reasons:
        raise ConflictError("not a revision of this hold: " + "; ".join(reasons[:8]))
