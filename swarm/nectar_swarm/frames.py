"""Frames: how messages of many sessions share one byte stream.

    length u32 | session u64 | kind u8 | flags u8 | payload          big-endian; length counts the payload alone

A message longer than `MAX_FRAME` travels as several frames with `MORE` set on all but the last, so that short ones of
other sessions go between them. Lengths are checked before anything is read on.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

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


Message = tuple[int, Kind, bytes]


def encode(session: int, kind: Kind, payload: bytes) -> list[bytes]:
    """The frames of one message. Raises ValueError over MAX_MESSAGE bytes."""
    if len(payload) <= MAX_FRAME:
        return [HEADER.pack(len(payload), session, kind, 0) + payload]
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(payload)} bytes; at most {MAX_MESSAGE} are sent")
    frames = []
    for offset in range(0, len(payload), MAX_FRAME):
        piece = payload[offset : offset + MAX_FRAME]
        flags = MORE if offset + MAX_FRAME < len(payload) else 0
        frames.append(HEADER.pack(len(piece), session, kind, flags) + piece)
    return frames


class Decoder:
    """Bytes in, whole messages out. Raises WireError for what breaks a bound; the link must then be closed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._partial: dict[tuple[int, Kind], bytearray] = {}
        self._partial_bytes = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        self._buffer += data
        offset = 0
        while len(self._buffer) - offset >= HEADER.size:
            length, session, number, flags = HEADER.unpack_from(self._buffer, offset)
            if length > MAX_FRAME:
                raise WireError(f"a frame of {length} bytes; at most {MAX_FRAME} are read")
            end = offset + HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(memoryview(self._buffer)[offset + HEADER.size : end])
            offset = end
            if (message := self._assemble(session, number, flags, payload)) is not None:
                yield message
        del self._buffer[:offset]

    def _assemble(self, session: int, number: int, flags: int, payload: bytes) -> Message | None:
        try:
            kind = Kind(number)
        except ValueError as error:
            raise WireError(f"frame kind {number} is unknown") from error
        if flags & ~MORE:
            raise WireError(f"frame flags {flags:#x} are unknown")
        key = session, kind
        if key not in self._partial and not flags:
            return session, kind, payload
        if flags and not payload:
            raise WireError("an empty piece of a message")
        whole = self._partial.setdefault(key, bytearray())
        whole += payload  # joined at once: many small pieces kept apart would take many times their bytes
        self._partial_bytes += len(payload)
        if len(whole) > MAX_MESSAGE:
            raise WireError(f"a message of over {MAX_MESSAGE} bytes, which is the most that is read")
        if len(self._partial) > MAX_PARTIAL_MESSAGES or self._partial_bytes > MAX_PARTIAL_BYTES:
            raise WireError("too much is unfinished on this link")
        if flags:
            return None
        del self._partial[key]
        self._partial_bytes -= len(whole)
        return session, kind, bytes(whole)
