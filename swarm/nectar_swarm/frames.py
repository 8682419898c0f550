"""Frames: how messages of many sessions share one byte stream.

    length u32 | session u64 | kind u8 | flags u8 | payload          big-endian; length counts the payload alone

A message longer than `MAX_FRAME` travels as several frames with `MORE` set on all but the last, so that short ones of
other sessions go between them. Lengths are checked before anything is read on.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from io import BytesIO

from nectar_swarm.errors import WireError

HEADER = struct.Struct("!IQBB")
MAX_FRAME = 128 << 10
MAX_MESSAGE = 64 << 20
MAX_PARTIAL_MESSAGES = 64
MAX_PARTIAL_BYTES = 2 * MAX_MESSAGE
MORE = 1


class Kind(IntEnum):
    """What a message is; docs/protocol.md has the layouts."""

    HELLO = 1
    PING = 2
    PONG = 3
    OPEN = 4
    REROUTE = 5
    ROUTED = 6
    STEP = 7
    CLOSE = 8
    ERROR = 9
    ASK = 10
    STATUS = 11
    BILL = 12
    COUNTERSIGN = 13
    HOLD = 14
    HISTORY = 15
    PAST = 16


KINDS = {int(kind): kind for kind in Kind}
Message = tuple[int, Kind, bytes]


def encode(session: int, kind: Kind, payload: bytes) -> Iterator[bytes]:
    """The frames of one message, made as they are asked for. Raises ValueError over MAX_MESSAGE bytes."""
    if len(payload) <= MAX_FRAME:
        return iter((HEADER.pack(len(payload), session, kind, 0) + payload,))
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(payload)} bytes; at most {MAX_MESSAGE} are sent")
    return _cut(session, kind, memoryview(payload))


def _cut(session: int, kind: Kind, payload: memoryview) -> Iterator[bytes]:
    for offset in range(0, len(payload), MAX_FRAME):
        piece = payload[offset : offset + MAX_FRAME]
        flags = MORE if offset + MAX_FRAME < len(payload) else 0
        yield HEADER.pack(len(piece), session, kind, flags) + piece


class Decoder:
    """Bytes in, whole messages out. Raises WireError for what breaks a bound; the link must then be closed.

    A message that lies whole in what has come is cut out of it; the bytes of any other are joined as they come.
    """

    def __init__(self) -> None:
        self.held_bytes = 0  # of unfinished messages
        self._start = b""  # of a header
        # Messages whose last frame has not begun. A BytesIO gives out what it has joined without another copy.
        self._partial: dict[tuple[int, Kind], BytesIO] = {}
        self._frame: tuple[int, Kind, int] = 0, Kind.HELLO, 0  # session, kind and flags of the one that is being read
        self._missing = 0  # bytes of that frame
        self._pieces: BytesIO | None = None  # where they go; None between frames

    def feed(self, data: bytes) -> Iterator[Message]:
        if self._start:
            data, self._start = self._start + data, b""
        offset = 0
        while True:
            if self._pieces is not None:
                piece = memoryview(data)[offset : offset + self._missing]
                self._pieces.write(piece)
                self.held_bytes += len(piece)
                self._missing -= len(piece)
                if self._missing:
                    return
                offset += len(piece)
                session, kind, flags = self._frame
                if not flags:
                    self.held_bytes -= self._pieces.tell()
                    yield session, kind, self._pieces.getvalue()
                self._pieces = None
            if len(data) - offset < HEADER.size:
                self._start = data[offset:]
                return
            length, session, number, flags = HEADER.unpack_from(data, offset)
            kind = _checked_kind(length, number, flags)
            offset += HEADER.size
            end = offset + length
            if not flags and end <= len(data) and (session, kind) not in self._partial:
                yield session, kind, data[offset:end]
                offset = end
            else:
                self._begin(session, kind, flags, length)

    def _begin(self, session: int, kind: Kind, flags: int, length: int) -> None:
        """Make room for a frame whose bytes are joined to those before, or wait for those to come."""
        pieces = self._partial.pop((session, kind), None) or BytesIO()
        if pieces.tell() + length > MAX_MESSAGE:
            raise WireError(f"a message of over {MAX_MESSAGE} bytes, which is the most that is read")
        if flags:
            if len(self._partial) >= MAX_PARTIAL_MESSAGES or self.held_bytes + length > MAX_PARTIAL_BYTES:
                raise WireError("too much is unfinished on this link")
            self._partial[session, kind] = pieces
        self._frame, self._missing, self._pieces = (session, kind, flags), length, pieces


def _checked_kind(length: int, number: int, flags: int) -> Kind:
    if length > MAX_FRAME:
        raise WireError(f"a frame of {length} bytes; at most {MAX_FRAME} are read")
    if (kind := KINDS.get(number)) is None:
        raise WireError(f"frame kind {number} is unknown")
    if flags & ~MORE:
        raise WireError(f"frame flags {flags:#x} are unknown")
    if flags and not length:
        raise WireError("an empty piece of a message")
    return kind
