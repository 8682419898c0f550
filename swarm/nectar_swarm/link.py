"""One byte stream to one peer, carrying the messages of every session.

All short messages of one turn of the loop leave in one write. Long ones leave piece by piece, as the stream takes
them, in turns between sessions; a session's own messages always stay in order.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID

from nectar_swarm.errors import WireError
from nectar_swarm.frames import Decoder, Kind, Message, encode
from nectar_swarm.messages import Hello, Ping

WIRE_VERSIONS = Hello(oldest=1, newest=2)
READ_SIZE = 256 << 10
CROWDED = 64 << 20
MAX_BACKLOG = 256 << 20  # a peer that reads nothing for so long loses its link


class Link:
    """Made from a stream; `greet` must succeed before anything else is sent or read.

    `delay_s` postpones every write: the seam by which tests and benchmarks imitate a distance.
    """

    def __init__(
        self, peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float = 0.0
    ) -> None:
        self.peer = peer
        self.delay_s = delay_s
        self.version = 0
        self.rtt_s: float | None = None
        self.measured = asyncio.Event()
        self.busy_ms = 0
        self.sent_bytes = self.received_bytes = 0
        self.suspected = False
        self._reader, self._writer = reader, writer
        self._loop = asyncio.get_running_loop()
        self.heard = self.said = self._loop.time()
        self._decoder = Decoder()
        self._waiting: deque[Message] = deque()
        self._urgent: list[bytes] = []
        self._bulk: dict[int, deque[bytes]] = {}
        self.held_bytes = 0  # of long messages that wait for the stream to take them
        self._when_clear: set[Callable[[], None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._delayed: deque[bytes] = deque()

    async def greet(self) -> None:
        """Exchange versions. Raises WireError if there is none in common."""
        self.send(0, Kind.HELLO, WIRE_VERSIONS.pack())
        async for _, kind, payload in self.messages():
            if kind is not Kind.HELLO:
                raise WireError(f"{self.peer} began with {kind.name} instead of HELLO")
            try:
                hello = Hello.unpack(payload)
            except MalformedError as error:
                raise WireError(f"{self.peer}: {error}") from error
            self.version = min(hello.newest, WIRE_VERSIONS.newest)
            if self.version < max(hello.oldest, WIRE_VERSIONS.oldest):
                raise WireError(
                    f"{self.peer} speaks wire versions {hello.oldest} to {hello.newest}, we speak "
                    f"{WIRE_VERSIONS.oldest} to {WIRE_VERSIONS.newest}; the older side must be upgraded"
                )
            return
        raise WireError(f"{self.peer} closed the stream without a greeting")

    def send(self, session: int, kind: Kind, payload: bytes = b"") -> None:
        """Queue one message. Never blocks; a closed link drops it."""
        if self._writer.is_closing():
            return
        frames = encode(session, kind, payload)
        if len(frames) == 1 and session not in self._bulk:
            if not self._urgent:
                self._loop.call_soon(self._flush)
            self._urgent += frames
            return
        self.held_bytes += sum(map(len, frames))
        if self.held_bytes > MAX_BACKLOG:
            self.abort()
            return
        self._bulk.setdefault(session, deque()).extend(frames)
        if self._pump is None:
            self._pump = asyncio.create_task(self._send_bulk())

    def ping(self, busy_ms: int) -> None:
        self.send(0, Kind.PING, Ping(int(self._loop.time() * 1e6) & 0xFFFFFFFF, busy_ms).pack())

    async def messages(self) -> AsyncIterator[Message]:
        """What arrives, until the stream ends. Answers pings itself. Raises WireError for broken frames."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            data = await self._reader.read(READ_SIZE)
            if not data:
                return
            self.heard, self.suspected = self._loop.time(), False
            self.received_bytes += len(data)
            for message in self._decoder.feed(data):
                if message[1] in (Kind.PING, Kind.PONG):
                    self._beat(message[1], message[2])
                else:
                    self._waiting.append(message)

    def close(self) -> None:
        """End the stream behind the short messages sent before; long ones that still wait are dropped.

        Not a delivery: if the peer is sending just then, libp2p may reset the stream under what is on its way.
        """
        self._flush()
        self._drop_bulk()
        self._writer.close()

    def abort(self) -> None:
        """End the stream at once: a peer that reads nothing would keep a closed one, and what it holds, for ever."""
        self._drop_bulk()
        self._writer.transport.abort()

    @property
    def crowded(self) -> bool:
        """Does so much wait here that whoever has a long replay to send should wait too?"""
        return self.held_bytes > CROWDED

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Call back once, in the loop, when the link is no longer crowded; never if it ends before."""
        self._when_clear.add(callback)

    def _drop_bulk(self) -> None:
        self._bulk.clear()
        self._when_clear.clear()
        self.held_bytes = 0
        if self._pump is not None:
            self._pump.cancel()

    def _beat(self, kind: Kind, payload: bytes) -> None:
        try:
            ping = Ping.unpack(payload)
        except MalformedError as error:
            raise WireError(f"{self.peer}: {error}") from error
        if kind is Kind.PING:
            self.busy_ms = ping.busy_ms
            self.send(0, Kind.PONG, payload)
        else:
            rtt_s = ((int(self._loop.time() * 1e6) - ping.stamp) & 0xFFFFFFFF) / 1e6
            self.rtt_s = rtt_s if self.rtt_s is None else min(rtt_s, 0.8 * self.rtt_s + 0.2 * rtt_s)
            self.measured.set()

    def _flush(self) -> None:
        if self._urgent:
            data = b"".join(self._urgent)
            self._urgent.clear()
            self._write(data)

    async def _send_bulk(self) -> None:
        try:
            while self._bulk:
                self._flush()  # or a piece would overtake a short message of its own session
                session = next(iter(self._bulk))
                frames = self._bulk.pop(session)
                frame = frames.popleft()
                self.held_bytes -= len(frame)
                self._write(frame)
                if frames and not self._writer.is_closing():
                    self._bulk[session] = frames
                await self._writer.drain()
                if self._when_clear and not self.crowded:
                    callbacks, self._when_clear = self._when_clear, set()
                    for callback in callbacks:
                        callback()
        except ConnectionError:
            self._drop_bulk()  # the reading side sees the same end
        finally:
            self._pump = None

    def _write(self, data: bytes) -> None:
        self.said = self._loop.time()
        self.sent_bytes += len(data)
        self._delayed.append(data)
        if self.delay_s:
            self._loop.call_later(self.delay_s, self._write_next)
        else:
            self._write_next()

    def _write_next(self) -> None:
        data = self._delayed.popleft()
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_BACKLOG:
            self.abort()
