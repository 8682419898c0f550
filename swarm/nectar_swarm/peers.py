"""The links of one process: one pooled, multiplexed stream per pair of peers, watched by heartbeats.

End of stream is death at once. A link that has said nothing for a second is suspected, after three it is dead: peers
ping each other every quarter of a second when they have nothing else to say, so that a stopped process, a lost p2pd
and a line that drops packets are all seen. A tick that comes late shows that we were the one asleep.

A peer has two links when both sides dialled at once, or when it has been started again and the end of its old link is
still to be noticed. We send on one of them, and its end is the peer's death, since what was under way on it is lost;
the other lives on, and is used when the peer is asked for again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Protocol, TypeVar

from nectar_protocol.address import Address
from nectar_protocol.errors import IdentityError
from nectar_protocol.identity import PeerID, parse_peer_id

from nectar_swarm.backlog import Backlog
from nectar_swarm.errors import SwarmError, UnreachableError, WireError
from nectar_swarm.frames import Kind
from nectar_swarm.host import DIAL_TIMEOUT_S, Host
from nectar_swarm.link import Link
from nectar_swarm.tunnel import Tunnels

PROTOCOL = "nectar/wire"
BEAT_S, SUSPECT_S, DEAD_S = 0.25, 1.0, 3.0
MAX_PEERS = 4096
MAX_LINKS_PER_PEER = 4  # two are needed, when both dial at once
MAX_DIALS = 64  # at once; p2pd goes on with a dial that nobody waits for any more
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

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
        self._used: dict[PeerID, Link] = {}  # those we send on
        self._dialled: dict[PeerID, Link] = {}
        self._accepted: dict[PeerID, Link] = {}
        self._backlog = Backlog()
        self._free_dials = asyncio.Semaphore(MAX_DIALS)
        self._connecting: dict[tuple[PeerID, tuple[Address, ...]], asyncio.Task[None]] = {}
        self._dialling: dict[PeerID, asyncio.Task[Link]] = {}
        self._greeting: Counter[PeerID] = Counter()  # streams to us that have not greeted yet
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.host.serve(PROTOCOL, self._accept)
        self._spawn(self._watch())

    async def close(self) -> None:
        await self.host.stop_serving(PROTOCOL)
        for link in [*self._dialled.values(), *self._accepted.values()]:
            link.close()
        tasks = [*self._tasks, *self._connecting.values(), *self._dialling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tunnels.close()

    def link(self, peer: PeerID) -> Link | None:
        """The pooled link to a peer, if there is one."""
        if peer not in self._used and (spares := self._links(peer)):
            self._used[peer] = spares[0]
        return self._used.get(peer)

    async def connect(self, peer: PeerID, addresses: Sequence[Address]) -> Link:
        """The pooled link to a peer, made if there is none. Raises UnreachableError or WireError."""
        if link := self.link(peer):
            return link
        if self.allowed is not None and peer not in self.allowed:
            raise UnreachableError(f"{peer} is not on this swarm's list of allowed peers")
        if peer == self.host.peer_id:
            raise UnreachableError("a peer cannot dial itself")
        if addresses:  # p2pd knows no addresses of a peer that it has not met
            await self._connect(peer, tuple(addresses))
        if link := self.link(peer):  # it was faster
            return link
        return await _shared(self._dialling, peer, lambda: self._dial(peer))

    async def _connect(self, peer: PeerID, addresses: tuple[Address, ...]) -> None:
        """Apart for each list of addresses, lest a stranger's wrong ones be tried in place of the right ones."""

        async def connect() -> None:
            async with self._free_dials:
                await self._tunnels.connect(peer, addresses)

        await _shared(self._connecting, (peer, addresses), connect)

    async def _dial(self, peer: PeerID) -> Link:
        async with self._free_dials:
            stream = await self.host.open_stream(peer, PROTOCOL)
        link = self._new_link(peer, *stream)
        await self._greet(link)
        self._add(link, self._dialled)
        self._spawn(self._run(link))
        return link

    async def _accept(self, peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self._new_link(peer, reader, writer)
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
        if peer in self._accepted:  # nobody dials who has a link: it was started again, or has lost that one
            self._end(self._accepted[peer], "has dialled anew")
        self._add(link, self._accepted)
        await self._run(link)

    def _new_link(self, peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Link:
        return Link(peer, reader, writer, delay_s=self.delay_s, backlog=self._backlog)

    def _check_room(self, peer: PeerID) -> None:
        """Raises WireError when this peer, or all together, have as many streams as we keep."""
        links = self._links(peer)
        if not links and len(self._dialled.keys() | self._accepted.keys()) + self._greeting.total() >= MAX_PEERS:
            raise WireError(f"links to {MAX_PEERS} peers are open already")
        if len(links) + self._greeting[peer] >= MAX_LINKS_PER_PEER:
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

    def _links(self, peer: PeerID) -> list[Link]:
        return [links[peer] for links in (self._dialled, self._accepted) if peer in links]

    def _add(self, link: Link, links: dict[PeerID, Link]) -> None:
        links[link.peer] = link
        self._used.setdefault(link.peer, link)
        link.ping(self._busy_ms())

    async def _run(self, link: Link) -> None:
        reason = "closed its link"
        try:
            await link.serve(self.handler.on_message)
        except OSError as error:
            reason = f"lost its link: {error}"
        except WireError as error:
            reason = f"broke the protocol: {error}"
            log.warning("%s %s", link.peer, reason)
        finally:
            self._end(link, reason)

    def drop(self, peer: PeerID, reason: str) -> None:
        """Close all links to a peer and report its death, once."""
        for link in sorted(self._links(peer), key=lambda link: link is self._used.get(peer)):
            self._end(link, reason)

    def _end(self, link: Link, reason: str) -> None:
        """Close a link; if it is the one we send on, its peer is dead."""
        for links in (self._dialled, self._accepted):
            if links.get(link.peer) is link:
                del links[link.peer]
        link.abort()
        if self._used.get(link.peer) is link:
            del self._used[link.peer]
            self.handler.on_dead(link.peer, reason)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(BEAT_S)
            now = loop.time()
            late_s, before = now - before - BEAT_S, now
            links = [*self._dialled.values(), *self._accepted.values()]
            for link in sorted(links, key=lambda link: link is self._used.get(link.peer)):
                if late_s > BEAT_S:
                    link.heard += late_s
                if now - link.said >= BEAT_S:
                    link.ping(self._busy_ms())
                silence_s = now - link.heard
                link.suspected = silence_s > SUSPECT_S
                if silence_s > DEAD_S:
                    self._end(link, f"has been silent for {silence_s:.1f} s")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _shared(
    tasks: dict[Key, asyncio.Task[Result]], key: Key, begin: Callable[[], Coroutine[Any, Any, Result]]
) -> Result:
    """The result of the dial under this key, begun if there is none. It goes on when those who wait have gone."""
    if key not in tasks:

        def end(task: asyncio.Task[Result]) -> None:
            del tasks[key]
            if not task.cancelled():
                task.exception()  # seen, even if nobody waits any more

        tasks[key] = asyncio.create_task(begin())
        tasks[key].add_done_callback(end)
    return await asyncio.shield(tasks[key])
