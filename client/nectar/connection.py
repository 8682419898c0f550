"""This process's place in a swarm as a client: links, the directory, and who is set aside for a while.

Its identity on the network is thrown away with it, unless a key is given, so that nodes cannot tell users apart.
Everything runs in the loop of a thread of its own; methods without `async` may be called from any other thread.
"""

import asyncio
import atexit
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import PeerID, PublicKey, peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm.directory import REFRESH_S, Directory
from nectar_swarm.errors import SwarmError, UnreachableError
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host, PeerAddress
from nectar_swarm.keyfile import hold_key, load_key
from nectar_swarm.link import Link
from nectar_swarm.messages import Status
from nectar_swarm.peers import Peers

from nectar.loop import LoopThread
from nectar.routing import Candidate

MEET_S = 2.0
MAX_MET = 32
ASIDE_S, MAX_ASIDE_S = 1.0, 60.0
FRESH_S = 0.5
Result = TypeVar("Result")


class Listener(Protocol):
    """A session, as its connection sees it. All methods run in the loop and must not block."""

    def on_message(self, link: Link, kind: Kind, payload: bytes) -> None: ...

    def on_dead(self, peer: PeerID, reason: str) -> None: ...

    def abandon(self) -> None: ...


class Effort(IntEnum):
    """How far to look for nodes; each goes beyond the one before.

    AT_HAND: those known and linked already, which costs no round trip; MEET: others that are known too; LOOK_AGAIN:
    whom the directory names now; FORGIVE: also those set aside.
    """

    AT_HAND = 0
    MEET = 1
    LOOK_AGAIN = 2
    FORGIVE = 3


class Connection:
    """Made by `Connection.open`, which raises UnreachableError or HostError; ended by `close`."""

    def __init__(
        self,
        initial_peers: Sequence[PeerAddress],
        allowed: frozenset[PeerID] | None = None,
        key_file: str | Path | None = None,
        link_delay_s: float = 0.0,
    ) -> None:
        self.initial_peers = tuple(initial_peers)
        self._allowed, self._link_delay_s = allowed, link_delay_s
        self._key_file = Path(key_file) if key_file else None
        self._thread = LoopThread("nectar")
        self._lock = asyncio.Lock()
        self._host: Host | None = None
        self._directory: Directory | None = None
        self._peers: Peers | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._sessions: dict[int, Listener] = {}
        self._asked: dict[int, asyncio.Future[Status]] = {}
        self._known: dict[ModelID, tuple[float, dict[PublicKey, Announcement]]] = {}
        self._aside: dict[PeerID, tuple[float, int]] = {}  # until when, and how many times in a row
        self._held_key: BinaryIO | None = None  # one identity must not be two peers
        self._closed = False

    @classmethod
    def open(
        cls,
        initial_peers: Sequence[str | PeerAddress],
        *,
        allowed: frozenset[PeerID] | None = None,
        key_file: str | Path | None = None,
        link_delay_s: float = 0.0,
    ) -> "Connection":
        """Join the swarm of `initial_peers`. `key_file` gives an identity that lasts, for swarms with an allow-list."""
        peers = [PeerAddress.parse(peer) if isinstance(peer, str) else peer for peer in initial_peers]
        if not peers:
            raise UnreachableError("no initial peers: give the address that a node prints when it starts")
        connection = cls(peers, allowed, key_file, link_delay_s)
        try:
            if key_file is not None:
                load_key(Path(key_file))  # a clear error before p2pd is asked
                connection._held_key = hold_key(Path(key_file))
            connection.run(connection._ensure_alive())
        except BaseException:
            connection.close()
            raise
        atexit.register(connection.close)
        return connection

    @property
    def daemon_pid(self) -> int | None:
        """The process ID of our libp2p daemon, if it runs."""
        return self._host.daemon_pid if self._host else None

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """A coroutine's result from the network's loop; blocks the calling thread."""
        return self._thread.run(work)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        self._thread.call(function, *arguments)

    def close(self) -> None:
        """End all sessions and the libp2p daemon. May be called twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):
            self._thread.run(self._shut())
        self._thread.stop()
        if self._held_key is not None:
            self._held_key.close()

    # Sessions

    def add(self, session: Listener) -> int:
        number = secrets.randbits(63)
        self._sessions[number] = session
        return number

    def remove(self, number: int) -> None:
        self._sessions.pop(number, None)

    # In the loop

    async def link(self, peer: PeerID, addresses: Sequence[Any]) -> Link:
        """The link to a peer. Raises SwarmError."""
        peers = await self._ensure_alive()
        return await peers.connect(peer, addresses)

    def present_link(self, peer: PeerID) -> Link | None:
        return self._peers.link(peer) if self._peers else None

    async def nodes(self, model: ModelID, *, fresh: bool = False) -> list[Announcement]:
        """The nodes that announce a model and do not leave: those known, or if `fresh` as of half a second ago.

        What was read before counts until it expires, so that a directory in trouble hides nobody. Raises SwarmError.
        """
        now_s, now_ms = asyncio.get_running_loop().time(), time.time() * 1000
        read_s, said = self._known.get(model, (-REFRESH_S, {}))
        known = {public: node for public, node in said.items() if node.expires_ms > now_ms}
        if not known or (fresh and now_s - read_s > FRESH_S):
            await self._ensure_alive()
            assert self._directory is not None
            for node in await self._directory.nodes(model):
                if node.node not in known or node.issued_ms > known[node.node].issued_ms:
                    known[node.node] = node
            self._known[model] = (now_s, known)
        return [node for node in known.values() if node.state is not NodeState.LEAVING]

    async def _keep_fresh(self) -> None:
        """While there are sessions, read the directory and meet who is new: a spare is needed in a hurry."""
        while True:
            await asyncio.sleep(REFRESH_S)
            for model in list(self._known) if self._sessions else ():
                with contextlib.suppress(SwarmError):
                    await self.candidates(model, Effort.LOOK_AGAIN)

    async def models(self) -> list[ModelID]:
        """The models of this swarm. Raises SwarmError."""
        await self._ensure_alive()
        assert self._directory is not None
        return await self._directory.models()

    async def candidates(self, model: ModelID, effort: Effort) -> list[Candidate]:
        """The nodes that serve this model and answer, with their round trips. Raises SwarmError."""
        now_s = asyncio.get_running_loop().time()
        nodes = [
            node
            for node in await self.nodes(model, fresh=effort >= Effort.LOOK_AGAIN)
            if node.serves
            and (effort >= Effort.FORGIVE or self._aside.get(peer_id(node.node), (0.0, 0))[0] <= now_s)
            and (effort > Effort.AT_HAND or self._at_hand(peer_id(node.node)))
        ]
        # The fastest first, if there are more than we want to hold links to.
        nodes = sorted(nodes, key=lambda node: node.decode_us / (node.stop - node.start))[:MAX_MET]
        met = await asyncio.gather(*(self._meet(node) for node in nodes))
        return [candidate for candidate in met if candidate is not None]

    def _at_hand(self, peer: PeerID) -> bool:
        link = self.present_link(peer)
        return link is not None and not link.suspected

    async def _meet(self, node: Announcement) -> Candidate | None:
        peer = peer_id(node.node)
        try:
            async with asyncio.timeout(MEET_S):
                link = await self.link(peer, node.addresses)
                await link.measured.wait()
        except (SwarmError, TimeoutError):
            self.set_aside(peer)
            return None
        return Candidate(peer, node.addresses, node.start, node.stop, node.decode_us / 1e6, link.rtt_s or 0.0)

    async def ask(self, peer: PeerID, addresses: Sequence[Any]) -> Status:
        """What a node says of itself. Raises SwarmError."""
        link = await self.link(peer, addresses)
        number = secrets.randbits(63)
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            link.send(number, Kind.ASK)
            async with asyncio.timeout(MEET_S):
                return await self._asked[number]
        except TimeoutError as error:
            raise UnreachableError(f"{peer} did not say how it is within {MEET_S:g} s") from error
        finally:
            del self._asked[number]

    def set_aside(self, peer: PeerID) -> None:
        """Leave a peer out for a second, and twice as long each further time in a row."""
        _, times = self._aside.get(peer, (0.0, 0))
        until_s = asyncio.get_running_loop().time() + min(ASIDE_S * 2**times, MAX_ASIDE_S)
        self._aside[peer] = (until_s, times + 1)

    def trust_again(self, peer: PeerID) -> None:
        self._aside.pop(peer, None)

    async def _ensure_alive(self) -> Peers:
        """Join the swarm, or join it again if p2pd has ended under us. Raises SwarmError."""
        async with self._lock:
            if self._peers is not None and self._host is not None and not self._host.ended.is_set():
                return self._peers
            if self._peers is not None:
                await self._leave()
            self._host = await Host.start(key_file=self._key_file)
            try:
                self._directory = await Directory.join(
                    self._host, self._meeting_points(), reader=True, allowed=self._allowed
                )
            except SwarmError:
                await self._host.close()
                raise
            self._peers = Peers(self._host, self, allowed=self._allowed, delay_s=self._link_delay_s)
            await self._peers.start()
            self._refresher = asyncio.create_task(self._keep_fresh())
            return self._peers

    def _meeting_points(self) -> list[PeerAddress]:
        """The initial peers, and every node we have heard of, in case none of those is left."""
        known = [node for _, nodes in self._known.values() for node in nodes.values()]
        others = [PeerAddress(peer_id(node.node), node.addresses) for node in known]
        return list({peer.peer: peer for peer in (*self.initial_peers, *others)}.values())

    async def _leave(self) -> None:
        if self._refresher is not None:
            self._refresher.cancel()
        peers, directory, host = self._peers, self._directory, self._host
        self._peers = self._directory = self._host = None
        for part in (peers, directory, host):
            if part is not None:
                with contextlib.suppress(Exception):
                    await part.close()

    async def _shut(self) -> None:
        for session in list(self._sessions.values()):
            session.abandon()
        await asyncio.sleep(0)  # let their last messages leave
        await self._leave()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:  # hivemind leaves some behind
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # Links

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        if kind is Kind.STATUS:
            asked = self._asked.get(session)
            if asked is not None and not asked.done():
                with contextlib.suppress(ValueError):
                    asked.set_result(Status.unpack(payload))
        elif (known := self._sessions.get(session)) is not None:
            known.on_message(link, kind, payload)

    def on_dead(self, peer: PeerID, reason: str) -> None:
        self.set_aside(peer)
        for session in list(self._sessions.values()):
            session.on_dead(peer, reason)


_shared: dict[tuple[Any, ...], Connection] = {}
_shared_lock = threading.Lock()


def shared_connection(initial_peers: Sequence[str | PeerAddress], **options: Any) -> Connection:
    """One connection per process and swarm, however many models use it."""
    key = (tuple(sorted(map(str, initial_peers))), *sorted(options.items(), key=lambda item: item[0]))
    with _shared_lock:
        connection = _shared.get(key)
        if connection is None or connection._closed:
            connection = _shared[key] = Connection.open(initial_peers, **options)
        return connection
