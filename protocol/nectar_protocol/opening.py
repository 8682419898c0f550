"""What a session's key signs for a node alone: that its hold may be used here, and that its history is asked for.

    opening  magic 8 "NECSESS1" | node 32 | link 32 | number 8 | hold 32 | session 32 | model 32 | salt 32 |
             span start 2, stop 2 | rows 2 | dtype 2 | positions 4
    request  magic 8 "NECHIST1" | node 32 | hold 32 | session 32 | expires ms 8

A hold becomes public; only with the key that it names can anybody open a session under it. `link` is the peer that
opens, `number` the session's on the wire, so that nobody can use an opening that he has seen. A history goes to whoever
shows a request: the session's client, an auditor's client among them.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import Identity, verify
from nectar_protocol.record import U16, U32, Count, Digest, Key, Record, Uint

OPENING_ROLE = b"nectar/session/v1\n"
HISTORY_ROLE = b"nectar/history/v1\n"
MAX_REQUEST_LIFE_MS = 86_400_000


@dataclass(frozen=True)
class Opening(Record):
    """`positions` is how many one row reserves; `dtype` the wire's code of the hidden states."""

    MAGIC: ClassVar[bytes] = b"NECSESS1"

    node: Key
    link: Key
    number: Annotated[int, Uint(8, 2**64 - 1)]
    hold: Digest
    session: Key
    model: Digest
    salt: Digest
    start: U16
    stop: U16
    rows: U16
    dtype: U16
    positions: U32

    def check(self) -> None:
        if self.node == self.session:
            raise MalformedError("a session's key is not its node's")

    def sign(self, identity: Identity) -> bytes:
        return identity.sign(OPENING_ROLE, self.pack())

    def verify(self, signature: bytes) -> None:
        """Raises SignatureError unless the session's key signed it."""
        verify(self.session, OPENING_ROLE, self.pack(), signature)


@dataclass(frozen=True)
class HistoryRequest(Record):
    """Asks a node for what it received in a session; from then on the node keeps it until `expires_ms` (Unix time)."""

    MAGIC: ClassVar[bytes] = b"NECHIST1"

    node: Key
    hold: Digest
    session: Key
    expires_ms: Count

    def sign(self, identity: Identity) -> bytes:
        return identity.sign(HISTORY_ROLE, self.pack())

    def verify(self, signature: bytes) -> None:
        """Raises SignatureError unless the session's key signed it."""
        verify(self.session, HISTORY_ROLE, self.pack(), signature)
