"""One byte stream to one peer, carrying the messages of every session.

It takes the transport over from the stream that hivemind made, so that what arrives is handed on in the same turn of
the loop: a stream's reader would need another turn and another copy.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID

from nectar_swarm.backlog import Backlog
from nectar_swarm.errors import WireError
from nectar_swarm.frames import Decoder, Kind, Message
from nectar_swarm.messages import Hello, Ping
from nectar_swarm.outbox import Outbox

WIRE_VERSIONS = Hello(oldest=1, newest=3)
MAX_PER_TURN = 64  # messages of one link in a turn of the loop

OnMessage = Callable[["Link", int, Kind, bytes], None]


class Link(asyncio.Protocol):
    """Made from a stream. `greet` must succeed before anything else is sent or read; `serve` hands on what arrives."""

    def __init__(
        self,
        peer: PeerID,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        delay_s: float = 0.0,
        backlog: Backlog | None = None,
    ) -> None:
        self.peer = peer
        self.version = 0
        self.rtt_s: float | None = None
        self.measured = asyncio.Event()
        self.busy_ms = 0
        self.received_bytes = 0
        self.suspected = False
        self._reader, self._writer = reader, writer  # which would close the transport if it were forgotten
        self._transport: Any = writer.transport  # both ways, which the type of a writer's does not say
        self._transport.set_write_buffer_limits(high=0)  # or uvloop keeps short messages until the end of its turn
        self._outbox = Outbox(self._transport, self._weigh, delay_s)
        self._backlog = backlog or Backlog()
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()
        self._decoder = Decoder()
        self._reads = True
        self._early: list[Message] = []  # what came before anybody serves
        self._on_message: OnMessage | None = None
        self._greeted, self._ended = asyncio.Event(), asyncio.Event()
        self._error: Exception | None = None

    async def greet(self) -> None:
        """Exchange versions. Raises WireError if there is none in common, and OSError when the stream breaks."""
        self.send(0, Kind.HELLO, WIRE_VERSIONS.pack())
        await self._take_over()
        await self._greeted.wait()
        if not self._early:
            raise self._error or WireError(f"{self.peer} closed the stream without a greeting")
        _, kind, payload = self._early.pop(0)
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

    async def _take_over(self) -> None:
        ended = self._reader.at_eof() or self._transport.is_closing()
        self._transport.set_protocol(self)
        self._reader.feed_eof()  # so that reading on takes what is there, and does not wait
        if data := await self._reader.read():
            self.data_received(data)
        if ended:
            self.eof_received()

    async def serve(self, on_message: OnMessage) -> None:
        """Hand on what arrives, but for pings, until the stream ends.

        Raises WireError for broken frames, OSError when the stream breaks, and what `on_message` raises.
        """
        early, self._early = self._early, []
        self._on_message = on_message
        for message in early:
            on_message(self, *message)
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def send(self, session: int, kind: Kind, payload: bytes = b"") -> None:
        """Send one message, or queue it. Never blocks; a closed link drops it."""
        if not self._transport.is_closing():
            self._outbox.send(session, kind, payload)

    def ping(self, busy_ms: int) -> None:
        self.send(0, Kind.PING, Ping(int(self._loop.time() * 1e6) & 0xFFFFFFFF, busy_ms).pack())

    def close(self) -> None:
        """End the stream behind the short messages sent before; long ones that still wait are dropped.

        Not a delivery: if the peer is sending just then, libp2p may reset the stream under what is on its way.
        """
        self._outbox.uncork()
        self._outbox.clear()
        self._transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """End the stream at once: a peer that reads nothing would keep a closed one, and what it holds, for ever."""
        self._early.clear()
        self._end(error)
        self._transport.abort()

    @property
    def sent_bytes(self) -> int:
        return self._outbox.sent_bytes

    @property
    def said(self) -> float:
        """When something was last sent, in the loop's time."""
        return self._outbox.said

    @property
    def backlog_bytes(self) -> int:
        """What waits here to be sent, and what has come of messages that are not whole yet."""
        return 0 if self._ended.is_set() else self._outbox.held_bytes + self._decoder.held_bytes

    @property
    def crowded(self) -> bool:
        """Does so much wait here that whoever has a long replay to send should wait too?"""
        return self._outbox.crowded

    def when_clear(self, callback: Callable[[], None]) -> None:
        """Call back once, in the loop, when the link is no longer crowded; never if it ends before."""
        self._outbox.when_clear(callback)

    # The transport's calls

    def data_received(self, data: bytes) -> None:
        self.heard, self.suspected = self._loop.time(), False
        self.received_bytes += len(data)
        self._hand_on(self._decoder.feed(data))

    def _hand_on(self, arrived: Iterator[Message]) -> None:
        """So many messages in this turn of the loop; the rest in the next, and nothing more is read until then."""
        if self._ended.is_set():
            return
        self._outbox.cork()
        try:
            for count, (session, kind, payload) in enumerate(arrived, 1):
                if kind is Kind.PING or kind is Kind.PONG:
                    self._beat(kind, payload)
                elif self._on_message is not None:
                    self._on_message(self, session, kind, payload)
                else:
                    self._early.append((session, kind, payload))
                    self._greeted.set()
                if self._ended.is_set():
                    return
                if count == MAX_PER_TURN:
                    self._loop.call_soon(self._hand_on, arrived)
                    self._read(False)
                    break
            else:
                self._read(True)
        except Exception as error:
            self.abort(error)
        self._outbox.uncork()
        if self._decoder.held_bytes:
            self._weigh()

    def _read(self, wanted: bool) -> None:
        if wanted != self._reads and not self._transport.is_closing():
            self._reads = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()

    def _end(self, error: Exception | None) -> None:
        if not self._ended.is_set():
            self._error = error
            self._ended.set()
            self._greeted.set()
            self._outbox.clear()
            self._weigh()

    def _weigh(self) -> None:
        self._backlog.weigh(self)

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
