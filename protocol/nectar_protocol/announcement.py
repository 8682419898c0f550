"""What a node says it serves: a fixed struct, signed by the node, at most 300 bytes.

    magic 8 "NECANN01" | node 32 | model 32 | issued ms 8 | expires ms 8 | span start 2, stop 2 | profile 1 | state 1 |
    decode µs 4 | prefill µs 4 | addresses (u8 count, binary) | signature 64 over "nectar/announcement/v1\\n" | body

The same bytes go into the DHT and, as a heartbeat, to a ledger. `decode` is the measured time of one token through
the whole announced span, `prefill` that of one token of a long prompt; both are claims, never paid for.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

from nectar_protocol.address import MAX_ADDRESSES, Address, pack_addresses, read_addresses
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import IdentityError, MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE, Identity, PublicKey, public_key, verify
from nectar_protocol.manifest import MODEL_ID_SIZE, ModelID

ROLE = b"nectar/announcement/v1\n"
MAGIC = b"NECANN01"
MAX_SIZE = 300
FIXED_SIZE = 103 + SIGNATURE_SIZE
MAX_LIFE_MS = 120_000
MAX_BLOCKS = 10_000


class Profile(IntEnum):
    """The format in which a node keeps the weights."""

    F32 = 0
    BF16 = 1
    FP16 = 2
    INT8 = 3
    NF4 = 4


class NodeState(IntEnum):
    """JOINING loads its span and cannot serve yet; LEAVING is the last word of a node that goes.

    MOVING serves still, and asks leave to take other blocks: nobody may rely on it to stay. PINNED serves, and stays
    where its operator put it.
    """

    JOINING = 1
    SERVING = 2
    LEAVING = 3
    MOVING = 4
    PINNED = 5


@dataclass(frozen=True)
class Announcement:
    """Blocks [start, stop) of `model` on `node`, from `issued_ms` until `expires_ms` (Unix time)."""

    node: PublicKey
    model: ModelID
    issued_ms: int
    expires_ms: int
    start: int
    stop: int
    profile: Profile
    state: NodeState
    decode_us: int
    prefill_us: int
    addresses: tuple[Address, ...]
    signature: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= MAX_BLOCKS:
            raise MalformedError(f"[{self.start}, {self.stop}) is not a span of blocks")
        if not 0 < self.expires_ms - self.issued_ms <= MAX_LIFE_MS:
            raise MalformedError(f"an announcement lives 1 to {MAX_LIFE_MS} ms")

    @property
    def serves(self) -> bool:
        """May sessions be opened on this node?"""
        return self.state in (NodeState.SERVING, NodeState.MOVING, NodeState.PINNED)

    def body(self) -> bytes:
        return b"".join(
            (
                MAGIC,
                self.node,
                self.model,
                uint(self.issued_ms, 8, "issued_ms"),
                uint(self.expires_ms, 8, "expires_ms"),
                uint(self.start, 2, "start"),
                uint(self.stop, 2, "stop"),
                bytes([self.profile, self.state]),
                uint(self.decode_us, 4, "decode_us"),
                uint(self.prefill_us, 4, "prefill_us"),
                pack_addresses(self.addresses),
            )
        )

    def signed(self, identity: Identity) -> "Announcement":
        """The same announcement with its node's signature. Raises MalformedError over 300 bytes, IdentityError for the
        key of another node.
        """
        if identity.public != self.node:
            raise IdentityError(f"{identity.peer_id} cannot sign what another node announces")
        signed = replace(self, signature=identity.sign(ROLE, self.body()))
        if len(signed.pack()) > MAX_SIZE:
            raise MalformedError(f"announcement over {MAX_SIZE} bytes; announce fewer addresses")
        return signed

    def pack(self) -> bytes:
        return self.body() + self.signature

    @classmethod
    def unpack(cls, data: bytes) -> "Announcement":
        """Parse and verify. Raises MalformedError or SignatureError."""
        if not len(MAGIC) + SIGNATURE_SIZE < len(data) <= MAX_SIZE:
            raise MalformedError(f"an announcement of {len(data)} bytes")
        reader = Reader(data[:-SIGNATURE_SIZE])
        if reader.take(len(MAGIC)) != MAGIC:
            raise MalformedError("not an announcement of version 1")
        node = public_key(reader.take(32))
        verify(node, ROLE, data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:])
        model = ModelID(reader.take(MODEL_ID_SIZE))
        issued_ms, expires_ms, start, stop = (reader.uint(size) for size in (8, 8, 2, 2))
        try:
            profile, state = Profile(reader.uint(1)), NodeState(reader.uint(1))
        except ValueError as error:
            raise MalformedError(f"announcement: {error}") from error
        decode_us, prefill_us = reader.uint(4), reader.uint(4)
        addresses = read_addresses(reader)
        reader.end()
        return cls(
            node, model, issued_ms, expires_ms, start, stop, profile, state, decode_us, prefill_us, addresses,
            signature=data[-SIGNATURE_SIZE:],
        )  # fmt: skip


def addresses_that_fit(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """The first of `addresses`, as many as an announcement has room for."""
    room, fitting = MAX_SIZE - FIXED_SIZE, []
    for address in addresses[:MAX_ADDRESSES]:
        room -= len(address.pack())
        if room < 0:
            break
        fitting.append(address)
    return tuple(fitting)
