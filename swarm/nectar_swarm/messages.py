"""The messages of the wire, typed: each knows its bytes, and refuses bytes that are not its own.

`None` for a neighbour means the client that owns the session. Where the layout differs between versions of the wire,
`pack` and `unpack` take the link's.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from nectar_protocol.address import Address, pack_addresses, read_addresses
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID, PublicKey, parse_peer_id, peer_id
from nectar_protocol.manifest import MODEL_ID_SIZE, ModelID

from nectar_swarm.tensors import CODES, DTYPES, MAX_BATCH, pack_tensor, read_tensor

MAX_HOLD = 16 << 10
MAX_TEXT = 1024
NOBODY = bytes(32)
STEP_HEAD = struct.Struct("!IIIH")  # first, last, position, length of the reorder


class ErrorCode(IntEnum):
    """Why a node refuses. MALFORMED and OUT_OF_RANGE are the sender's fault: sent for a step, they end it for good."""

    BUSY = 1
    LEAVING = 2
    UNREACHABLE = 3
    LOST = 4
    FAILED = 5
    EXPIRED = 6
    UNKNOWN_SESSION = 7
    WRONG_MODEL = 8
    UNPAID = 9
    MALFORMED = 16
    DENIED = 17
    OUT_OF_RANGE = 18


def pack_text(text: str) -> bytes:
    """A text with its length in front, cut between characters where it is too long."""
    data = text.encode()[:MAX_TEXT].decode(errors="ignore").encode()
    return uint(len(data), 2, "text length") + data


def read_text(reader: Reader) -> str:
    """Raises MalformedError."""
    if (size := reader.uint(2)) > MAX_TEXT:
        raise MalformedError(f"a text of {size} bytes; at most {MAX_TEXT} are read")
    return reader.text(size)


def _pack_peer(peer: PeerID | None) -> bytes:
    return parse_peer_id(peer) if peer else NOBODY


def _read_peer(reader: Reader) -> PeerID | None:
    raw = reader.take(len(NOBODY))
    return None if raw == NOBODY else peer_id(PublicKey(raw))


@dataclass(frozen=True)
class Hello:
    """First on every stream, both ways: the wire versions that the sender speaks."""

    oldest: int
    newest: int

    def pack(self) -> bytes:
        return uint(self.oldest, 2, "oldest") + uint(self.newest, 2, "newest")

    @classmethod
    def unpack(cls, data: bytes) -> "Hello":
        reader = Reader(data)
        hello = cls(reader.uint(2), reader.uint(2))
        return hello  # whatever a later version appends is not ours to read


@dataclass(frozen=True)
class Ping:
    """Life. `stamp` comes back in a PONG; `busy_ms` is the age of the sender's running computation, 0 when idle."""

    stamp: int
    busy_ms: int

    def pack(self) -> bytes:
        return uint(self.stamp, 4, "stamp") + uint(self.busy_ms, 4, "busy_ms")

    @classmethod
    def unpack(cls, data: bytes) -> "Ping":
        reader = Reader(data)
        ping = cls(reader.uint(4), reader.uint(4))
        reader.end()
        return ping


@dataclass(frozen=True)
class Neighbours:
    """A node's place in a route.

    `generation` orders a session's changes. The successor counts as having the steps up to `sent`; those up to
    `settled` were answered long ago and may be sent merged.
    """

    generation: int
    prev: PeerID | None
    next: PeerID | None
    next_addresses: tuple[Address, ...] = ()
    sent: int = 0
    settled: int = 0

    def pack(self) -> bytes:
        return b"".join(
            (
                uint(self.generation, 4, "generation"),
                _pack_peer(self.prev),
                _pack_peer(self.next),
                pack_addresses(self.next_addresses),
                uint(self.sent, 4, "sent"),
                uint(self.settled, 4, "settled"),
            )
        )

    @classmethod
    def read(cls, reader: Reader) -> "Neighbours":
        return cls(
            reader.uint(4),
            _read_peer(reader),
            _read_peer(reader),
            read_addresses(reader),
            reader.uint(4),
            reader.uint(4),
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Neighbours":
        reader = Reader(data)
        neighbours = cls.read(reader)
        reader.end()
        return neighbours


@dataclass(frozen=True)
class Open:
    """Asks a node to run blocks [start, stop) for a session of `batch` rows of at most `max_length` positions.

    `pads` holds, per row, how many of its first positions are padding. `hold` is the Payment for the session, packed;
    empty where nothing pays for it.
    """

    model: ModelID
    start: int
    stop: int
    max_length: int
    dtype: torch.dtype
    pads: tuple[int, ...]
    neighbours: Neighbours
    hold: bytes = b""

    @property
    def batch(self) -> int:
        return len(self.pads)

    @property
    def positions(self) -> int:
        """Of one row, that it reserves in all."""
        return self.batch * self.max_length

    def pack(self) -> bytes:
        return b"".join(
            (
                self.model,
                uint(self.start, 2, "start"),
                uint(self.stop, 2, "stop"),
                uint(self.max_length, 4, "max_length"),
                bytes([CODES[self.dtype]]),
                uint(len(self.pads), 2, "batch"),
                b"".join(uint(pad, 4, "pad") for pad in self.pads),
                uint(len(self.hold), 2, "hold length"),
                self.hold,
                self.neighbours.pack(),
            )
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Open":
        reader = Reader(data)
        model = ModelID(reader.take(MODEL_ID_SIZE))
        start, stop, max_length, dtype = reader.uint(2), reader.uint(2), reader.uint(4), reader.uint(1)
        if dtype not in DTYPES:
            raise MalformedError(f"dtype {dtype} is unknown")
        batch = reader.uint(2)
        if not 0 < batch <= MAX_BATCH:
            raise MalformedError(f"a session of {batch} rows; 1 to {MAX_BATCH} are served")
        pads = tuple(reader.uint(4) for _ in range(batch))
        size = reader.uint(2)
        if size > MAX_HOLD:
            raise MalformedError(f"a hold of {size} bytes; at most {MAX_HOLD} are read")
        hold = reader.take(size)
        neighbours = Neighbours.read(reader)
        reader.end()
        return cls(model, start, stop, max_length, DTYPES[dtype], pads, neighbours, hold)


@dataclass(frozen=True)
class Routed:
    """The node has taken its place of this generation, and has its link to the successor."""

    generation: int

    def pack(self) -> bytes:
        return uint(self.generation, 4, "generation")

    @classmethod
    def unpack(cls, data: bytes) -> "Routed":
        reader = Reader(data)
        routed = cls(reader.uint(4))
        reader.end()
        return routed


@dataclass(frozen=True)
class Step:
    """Hidden states [batch, tokens, width] at `position`: step `last`, and in a replay all from `first` to `last`.

    A step at an earlier position than the session has reached rolls it back. `reorder` names, for each row, the row
    whose past it continues (beam search); it is applied before the step.
    """

    first: int
    last: int
    position: int
    hidden: torch.Tensor = field(compare=False)
    reorder: tuple[int, ...] = ()

    def pack(self) -> bytes:
        try:
            head = STEP_HEAD.pack(self.first, self.last, self.position, len(self.reorder))
            rows = struct.pack(f"!{len(self.reorder)}H", *self.reorder)
        except struct.error as error:
            raise MalformedError(f"step {self.first} to {self.last} at {self.position}: {error}") from error
        return pack_tensor(self.hidden, before=head + rows)

    @classmethod
    def unpack(cls, data: bytes) -> "Step":
        reader = Reader(data)
        first, last, position, rows = STEP_HEAD.unpack(reader.take(STEP_HEAD.size))
        if not 0 < first <= last or rows > MAX_BATCH:
            raise MalformedError(f"steps {first} to {last} with {rows} rows reordered")
        reorder = struct.unpack(f"!{rows}H", reader.take(2 * rows)) if rows else ()
        return cls(first, last, position, read_tensor(reader), reorder)


@dataclass(frozen=True)
class Error:
    """A refusal. `peer` is the neighbour that it is about, `generation` the change that it answers (0: none).

    `retry_after_ms`, from version 2 on, advises a client that is refused for now when to ask again (0: no advice).
    """

    code: ErrorCode
    text: str
    generation: int = 0
    peer: PeerID | None = None
    retry_after_ms: int = 0

    def pack(self, version: int) -> bytes:
        return b"".join(
            (
                uint(self.code, 2, "code"),
                uint(self.generation, 4, "generation"),
                _pack_peer(self.peer),
                uint(self.retry_after_ms, 4, "retry_after_ms") if version >= 2 else b"",
                pack_text(self.text),
            )
        )

    @classmethod
    def unpack(cls, data: bytes, version: int) -> "Error":
        reader = Reader(data)
        try:
            code = ErrorCode(reader.uint(2))
        except ValueError as error:
            raise MalformedError(f"error code: {error}") from error
        generation, peer = reader.uint(4), _read_peer(reader)
        retry_after_ms = reader.uint(4) if version >= 2 else 0
        text = read_text(reader)
        reader.end()
        return cls(code, text, generation, peer, retry_after_ms)
