"""What one link has to send, in an order that lets nothing long hold back a single token.

A short message leaves at once; those that follow it in the same turn of the loop leave together, in one write. Long
ones leave piece by piece, as the stream takes them, in turns between sessions. A session's own messages always stay in
order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from nectar_swarm.distance import Distance
from nectar_swarm.frames import HEADER, MAX_FRAME, Kind, encode

CROWDED = 64 << 20


class Outbox:
    """The sending half of a link; the link tells it when the transport is full (`pause`) and when it is not (`resume`).

    `on_growth` is called when more waits than before, be it here or in the transport. `delay_s` postpones every write:
    the seam by which tests and benchmarks imitate a distance.
    """

    def __init__(self, transport: asyncio.WriteTransport, on_growth: Callable[[], None], delay_s: float = 0.0) -> None:
        self.sent_bytes = 0
        self.bulk_bytes = 0  # of long messages that wait for the stream to take them
        self._transport, self._on_growth = transport, on_growth
        self._distance = Distance(delay_s, self._write_now) if delay_s else None
        self._loop = asyncio.get_running_loop()
        self.said = self._loop.time()
        self._corked = False
        self._joined: list[bytes] = []  # short messages of this turn, but for the first
        self._bulk: dict[int, deque[Iterator[bytes]]] = {}  # the frames of each session's messages
        self._full = self._pumping = False
        self._when_clear: set[Callable[[], None]] = set()

    @property
    def held_bytes(self) -> int:
        return self.bulk_bytes + self._transport.get_write_buffer_size()

    def send(self, session: int, kind: Kind, payload: bytes) -> None:
        frames = encode(session, kind, payload)
        if len(payload) > MAX_FRAME or session in self._bulk:
            self.bulk_bytes += len(payload)
            self._bulk.setdefault(session, deque()).append(frames)
            self._pump_soon()
            self._on_growth()
        elif self._corked:
            self._joined += frames
        else:
            self._corked = True
            self._loop.call_soon(self.uncork)
            self._write(next(frames))

    def cork(self) -> None:
        """Keep short messages back until `uncork`: more are about to be sent in this turn."""
        self._corked = True

    def uncork(self) -> None:
        self._corked = False
        if self._joined:
            data = b"".join(self._joined)
            self._joined.clear()
            self._write(data)

    def pause(self) -> None:
        self._full = True

    def resume(self) -> None:
        self._full = False
        if self._bulk:
            self._pump_soon()

    def clear(self) -> None:
        """Forget the long messages, and who waits for them."""
        self._bulk.clear()
        self._when_clear.clear()
        self.bulk_bytes = 0

    @property
    def crowded(self) -> bool:
        """Does so much wait here that whoever has a long replay to send should wait too?"""
        return self.bulk_bytes > CROWDED

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Call back once, in the loop, when the link is no longer crowded; never if it ends before."""
        self._when_clear.add(callback)

    def _pump_soon(self) -> None:
        if not self._pumping and not self._full:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send one piece: only one in a turn of the loop, so that short messages pass between."""
        self._pumping = False
        if not self._full and (frame := self._next_piece()):
            self.uncork()  # or a piece would overtake a short message of its own session
            self.bulk_bytes -= len(frame) - HEADER.size
            self._write(frame)
            self._pump_soon()
        if self._when_clear and not self.crowded:
            callbacks, self._when_clear = self._when_clear, set()
            for callback in callbacks:
                callback()

    def _next_piece(self) -> bytes | None:
        while self._bulk:
            session = next(iter(self._bulk))
            messages = self._bulk.pop(session)
            if frame := next(messages[0], None):
                self._bulk[session] = messages  # behind the other sessions
                return frame
            messages.popleft()
            if messages:
                self._bulk[session] = messages
        return None

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self.said = self._loop.time()
        self.sent_bytes += len(data)
        if self._distance is not None:
            self._distance.write(data)
        else:
            self._write_now(data)

    def _write_now(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            if self._full:
                self._on_growth()
