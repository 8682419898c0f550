"""The links of one process: one pooled, multiplexed stream per pair of peers, watched by heartbeats.

End of stream is death at once. A peer that has said nothing for a second is suspected, after three it is dead: peers
ping each other every quarter of a second when they have nothing else to say, so that a stopped process, a lost p2pd
and a line that drops packets are all seen. A tick that comes late shows that we were the one asleep.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from nectar_protocol.address import Address
from nectar_protocol.errors import IdentityError
from nectar_protocol.identity import PeerID, parse_peer_id

from nectar_swarm.errors import SwarmError, UnreachableError, WireError
from nectar_swarm.frames import Kind
from nectar_swarm.host import DIAL_TIMEOUT_S, Host
from nectar_swarm.link import Link
from nectar_swarm.tunnel import Tunnels

PROTOCOL = "nectar/wire"
BEAT_S, SUSPECT_S, DEAD_S = 0.25, 1.0, 3.0
MAX_PEERS = 4096
MAX_LINKS_PER_PEER = 4  # two are needed, when both dial at once

log = logging.getLogger(__name__)


class Handler(Protocol):
    """What a process does with its links. All methods run in the loop and must not block."""

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None: ...

    def on_dead(self, peer: PeerID, reason: str) -> None: ...


class Peers:
    """All links of this process. With `allowed`, streams from and to any other peer are refused."""

    def __init__(
        self,
        host: Host,
        handler: Handler,
        *,
        allowed: frozenset[PeerID] | None = None,
        busy_ms: Callable[[], int] = lambda: 0,
        delay_s: float = 0.0,
    ) -> None:
        self.host, self.handler, self.allowed, self.delay_s = host, handler, allowed, delay_s
        self._busy_ms = busy_ms
        self._tunnels = Tunnels(host)
        self._first: dict[PeerID, Link] = {}  # the link we send on
        self._every: dict[PeerID, set[Link]] = {}  # two when both sides dialled at once
        self._dialling: dict[PeerID, asyncio.Task[Link]] = {}
        self._greeting: Counter[PeerID] = Counter()  # streams to us that have not greeted yet
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.host.serve(PROTOCOL, self._accept)
        self._spawn(self._watch())

    async def close(self) -> None:
        await self.host.stop_serving(PROTOCOL)
        for links in list(self._every.values()):
            for link in list(links):
                link.close()
        for task in [*self._tasks, *self._dialling.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._dialling.values(), return_exceptions=True)
        await self._tunnels.close()

    def link(self, peer: PeerID) -> Link | None:
        """The pooled link to a peer, if there is one."""
        return self._first.get(peer)

    async def connect(self, peer: PeerID, addresses: Sequence[Address]) -> Link:
        """The pooled link to a peer, made if there is none. Raises UnreachableError or WireError."""
        if peer in self._first:
            return self._first[peer]
        if self.allowed is not None and peer not in self.allowed:
            raise UnreachableError(f"{peer} is not on this swarm's list of allowed peers")
        if peer == self.host.peer_id:
            raise UnreachableError("a peer cannot dial itself")
        if peer not in self._dialling:
            self._dialling[peer] = asyncio.create_task(self._dial(peer, addresses))
            self._dialling[peer].add_done_callback(lambda task: self._dialled(peer, task))
        return await asyncio.shield(self._dialling[peer])

    def _dialled(self, peer: PeerID, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(peer, None)
        if not task.cancelled():
            task.exception()  # seen, even if whoever asked for the link has gone

    async def _dial(self, peer: PeerID, addresses: Sequence[Address]) -> Link:
        if addresses:  # p2pd knows no addresses of a peer that it has not met
            await self._tunnels.connect(peer, addresses)
        reader, writer = await self.host.open_stream(peer, PROTOCOL)
        link = Link(peer, reader, writer, self.delay_s)
        await self._greet(link)
        self._add(link)
        self._spawn(self._run(link))
        return link

    async def _accept(self, peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(peer, reader, writer, self.delay_s)
        try:
            parse_peer_id(peer)
            if self.allowed is not None and peer not in self.allowed:
                raise WireError(f"{peer} is not on this swarm's list of allowed peers")
            self._check_room(peer)
            self._greeting[peer] += 1
            try:
                await self._greet(link)
            finally:
                self._greeting[peer] -= 1
                self._greeting += Counter()  # forgets those at zero
        except (SwarmError, IdentityError) as error:
            log.info("refused a stream: %s", error)
            link.close()
            return
        self._add(link)
        await self._run(link)

    def _check_room(self, peer: PeerID) -> None:
        """Raises WireError when this peer, or all together, have as many streams as we keep."""
        if peer not in self._every and len(self._every) + self._greeting.total() >= MAX_PEERS:
            raise WireError(f"links to {MAX_PEERS} peers are open already")
        if len(self._every.get(peer, ())) + self._greeting[peer] >= MAX_LINKS_PER_PEER:
            raise WireError(f"{peer} has {MAX_LINKS_PER_PEER} links already")

    async def _greet(self, link: Link) -> None:
        """Raises UnreachableError or WireError, with the link closed."""
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await link.greet()
        except TimeoutError as error:
            link.close()
            raise UnreachableError(f"{link.peer} did not greet within {DIAL_TIMEOUT_S:g} s") from error
        except OSError as error:
            link.close()
            raise UnreachableError(f"{link.peer} closed the stream: {error}") from error
        except WireError:
            link.close()
            raise

    def _add(self, link: Link) -> None:
        self._first.setdefault(link.peer, link)
        self._every.setdefault(link.peer, set()).add(link)
        link.ping(self._busy_ms())

    async def _run(self, link: Link) -> None:
        reason = "closed its link"
        try:
            async for session, kind, payload in link.messages():
                self.handler.on_message(link, session, kind, payload)
        except OSError as error:
            reason = f"lost its link: {error}"
        except WireError as error:
            reason = f"broke the protocol: {error}"
            log.warning("%s %s", link.peer, reason)
        finally:
            self.drop(link.peer, reason)

    def drop(self, peer: PeerID, reason: str) -> None:
        """Close all links to a peer and report its death, once."""
        self._first.pop(peer, None)
        links = self._every.pop(peer, None)
        if links is None:
            return
        for link in links:
            link.abort()
        self.handler.on_dead(peer, reason)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(BEAT_S)
            now = loop.time()
            late_s, before = now - before - BEAT_S, now
            for peer, links in list(self._every.items()):
                for link in links:
                    if late_s > BEAT_S:
                        link.heard += late_s
                    if now - link.said >= BEAT_S:
                        link.ping(self._busy_ms())
                silence_s = now - max(link.heard for link in links)
                if silence_s > DEAD_S:
                    self.drop(peer, f"has been silent for {silence_s:.1f} s")
                else:
                    for link in links:
                        link.suspected = silence_s > SUSPECT_S

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
