"""The receipt: the running total of one session on one node, signed by both.

      0   8 "NECRCPT1"    136  8 seq, from 1                      160  8 prefill tokens     168  8 prefill context
      8  32 hold          144  2 span start   146  2 span stop    176  8 decode tokens      184  8 decode context
     40  32 server key    148  2 profile      150  2 flags        192  8 backward tokens    200  8 backward context
     72  32 session key   152  8 reserved tokens                  208  8 units
    104  32 commitment
    216  64 server signature  over "nectar/receipt/v1/server\\n"  | body
    280  64 session signature over "nectar/receipt/v1/session\\n" | body                    344 in all

Parsing costs microseconds and verifying a hundred, so the two are apart: nothing here verifies unless it is asked to.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from nectar_protocol.announcement import MAX_BLOCKS, Profile
from nectar_protocol.errors import ConflictError, IdentityError, MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE, Identity, PublicKey, verify
from nectar_protocol.record import MAX_COUNT, sound

MAGIC = b"NECRCPT1"
SERVER_ROLE = b"nectar/receipt/v1/server\n"
SESSION_ROLE = b"nectar/receipt/v1/session\n"
BODY = struct.Struct(">8s32s32s32s32sQHHHHQQQQQQQQ")
SIGNED = struct.Struct(f"{BODY.format}{SIGNATURE_SIZE}s{SIGNATURE_SIZE}s")
SIZE = SIGNED.size
FINAL = 1
PROFILES = tuple(Profile)


class Work(NamedTuple):
    """What a session has had done, in running totals over its rows.

    `reserved_tokens` are the positions of KV it asked for. A context is the sum of the positions, counted from 0, at
    which the tokens stood.
    """

    reserved_tokens: int = 0
    prefill_tokens: int = 0
    prefill_context: int = 0
    decode_tokens: int = 0
    decode_context: int = 0
    backward_tokens: int = 0
    backward_context: int = 0


@dataclass(frozen=True)
class Receipt:
    """What both sign. `final`: nothing will follow, and what is left of the line may go back to its payer."""

    hold: bytes
    server: PublicKey
    session: PublicKey
    commitment: bytes
    seq: int
    start: int
    stop: int
    profile: Profile
    final: bool
    work: Work
    units: int

    def __post_init__(self) -> None:
        if not len(self.hold) == len(self.server) == len(self.session) == len(self.commitment) == 32:
            raise MalformedError("hold, server, session and commitment of a receipt are 32 bytes each")
        self._check()

    def _check(self) -> None:
        if self.server == self.session:
            raise MalformedError("a session's key is not its node's")
        if not 0 < self.seq <= MAX_COUNT:
            raise MalformedError(f"seq = {self.seq}; receipts are counted from 1 to {MAX_COUNT}")
        if not 0 <= self.start < self.stop <= MAX_BLOCKS:
            raise MalformedError(f"[{self.start}, {self.stop}) is not a span of blocks")
        work, units = self.work, self.units
        if min(work) < 0 or max(work) > MAX_COUNT or not 0 <= units <= MAX_COUNT:
            raise MalformedError(f"tokens, contexts and units of a receipt are 0 to {MAX_COUNT}")
        _, p, p_context, d, d_context, b, b_context = work
        if (p_context and not p) or (d_context and not d) or (b_context and not b):
            raise MalformedError("a receipt counts positions of tokens that it does not count")

    def body(self) -> bytes:
        """The 216 bytes that both sign."""
        return BODY.pack(
            MAGIC, self.hold, self.server, self.session, self.commitment, self.seq, self.start, self.stop,
            self.profile, FINAL if self.final else 0, *self.work, self.units,
        )  # fmt: skip

    @classmethod
    def from_body(cls, data: bytes) -> "Receipt":
        """Raises MalformedError for anything that `body` does not make."""
        if len(data) != BODY.size:
            raise MalformedError(f"a receipt's body of {len(data)} bytes; it has {BODY.size}")
        return cls.from_fields(*BODY.unpack(data))

    @classmethod
    def from_fields(
        cls, magic: bytes, hold: bytes, server: PublicKey, session: PublicKey, commitment: bytes, seq: int, start: int,
        stop: int, profile: int, flags: int, *counts: int,
    ) -> "Receipt":  # fmt: skip
        """A receipt from what BODY unpacks. Raises MalformedError."""
        if magic != MAGIC or flags & ~FINAL or profile >= len(PROFILES):
            raise MalformedError("not a receipt of version 1, or with a profile or a flag that version 1 has not")
        receipt = sound(
            cls, hold=hold, server=server, session=session, commitment=commitment, seq=seq, start=start, stop=stop,
            profile=PROFILES[profile], final=flags == FINAL, work=Work(*counts[:-1]), units=counts[-1],
        )  # fmt: skip
        receipt._check()
        return receipt

    def sign(self, identity: Identity) -> bytes:
        """The signature of the server or of the session, as the key says. Raises IdentityError for any other key."""
        roles = {self.server: SERVER_ROLE, self.session: SESSION_ROLE}
        if identity.public not in roles:
            raise IdentityError(f"{identity.peer_id} is neither this receipt's server nor its session")
        return identity.sign(roles[identity.public], self.body())

    def verify_server(self, signature: bytes) -> None:
        """Raises SignatureError unless the node signed it."""
        verify(self.server, SERVER_ROLE, self.body(), signature)

    def verify_session(self, signature: bytes) -> None:
        """Raises SignatureError unless the session's key signed it."""
        verify(self.session, SESSION_ROLE, self.body(), signature)


@dataclass(frozen=True)
class SignedReceipt:
    """A receipt with both signatures, 344 bytes; they are checked by `verify` alone."""

    receipt: Receipt
    server_signature: bytes
    session_signature: bytes

    def __post_init__(self) -> None:
        if not len(self.server_signature) == len(self.session_signature) == SIGNATURE_SIZE:
            raise MalformedError(f"a receipt's signatures are {SIGNATURE_SIZE} bytes each")

    def pack(self) -> bytes:
        return self.receipt.body() + self.server_signature + self.session_signature

    @classmethod
    def unpack(cls, data: bytes) -> "SignedReceipt":
        """Parse without verifying. Raises MalformedError."""
        if len(data) != SIZE:
            raise MalformedError(f"a receipt of {len(data)} bytes; it has {SIZE}")
        *fields, server_signature, session_signature = SIGNED.unpack(data)
        receipt = Receipt.from_fields(*fields)
        return sound(cls, receipt=receipt, server_signature=server_signature, session_signature=session_signature)

    def verify(self) -> None:
        """Raises SignatureError unless both signed it."""
        self.receipt.verify_server(self.server_signature)
        self.receipt.verify_session(self.session_signature)


def check_follows(previous: Receipt, new: Receipt) -> None:
    """Raise ConflictError, with every reason, unless `new` continues the running totals of `previous`."""
    same = ("hold", "server", "session", "start", "stop", "profile")
    reasons = [f"another {name}" for name in same if getattr(previous, name) != getattr(new, name)]
    if new.seq <= previous.seq:
        reasons.append(f"seq {new.seq} after {previous.seq}")
    if previous.final:
        reasons.append("the one before is final")
    totals = zip((*Work._fields, "units"), (*previous.work, previous.units), (*new.work, new.units), strict=True)
    reasons += [f"{name} fall from {before} to {after}" for name, before, after in totals if after < before]
    if reasons:
        raise ConflictError("not the continuation of this receipt: " + "; ".join(reasons))
