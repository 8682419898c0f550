"""This process's place in a swarm as a client: its p2pd, its links, its sessions.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from nectar_protocol.address import Address
from nectar_protocol.identity import PeerID
from nectar_swarm.directory import Directory
from nectar_swarm.errors import SwarmError, UnreachableError
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host
from nectar_swarm.keyfile import hold_key, load_key
from nectar_swarm.link import Link
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.peers import Peers

from nectar.loop import LoopThread
from nectar.scout import Scout
from nectar.view import View

if TYPE_CHECKING:
    from nectar.ledger import Ledger

LINGER_S = 120.0  # after its last session, a connection is still in use
FAREWELL_S = 4.0  # how long a connection's end waits for what sessions still have to settle
Result = TypeVar("Result")


class Listener(Protocol):
    """A session, as its connection sees it. All methods run in the loop and must not block."""

    def on_message(self, link: Link, kind: Kind, payload: bytes) -> None: ...

    def on_dead(self, peer: PeerID, reason: str) -> None: ...

    def abandon(self) -> None: ...


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
        self.view = View()
        self.scout = Scout(self, self.view)
        self._allowed, self._link_delay_s = allowed, link_delay_s
        self._key_file = Path(key_file) if key_file else None
        self._thread = LoopThread("nectar")
        self._lock = asyncio.Lock()
        self._host: Host | None = None
        self._directory: Directory | None = None
        self._peers: Peers | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._sessions: dict[int, Listener] = {}
        self._used_s = float("-inf")
        self._ledgers: dict[str, Ledger] = {}
        self._farewells: set[asyncio.Task[None]] = set()
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

    def prefetch(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done in the loop that nobody waits for."""
        self._thread.call(self.linger, work)

    # Sessions

    def add(self, session: Listener) -> int:
        number = secrets.randbits(63)
        self._sessions[number] = session
        return number

    def hand_over(self, number: int, listener: Listener) -> None:
        """What still comes for a session that has ended is this one's from now on."""
        self._sessions[number] = listener

    def remove(self, number: int) -> None:
        self._sessions.pop(number, None)
        self._used_s = time.monotonic()

    def linger(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that nobody waits for but, for a while, `close`; in the loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    def ledger(self, address: str) -> "Ledger":
        """A ledger as all sessions of this connection know it. Raises LedgerClientError for what is no address."""
        from nectar.ledger import Ledger

        if address not in self._ledgers:
            self._ledgers[address] = Ledger(address)
        return self._ledgers[address]

    @property
    def in_use(self) -> bool:
        """Are there sessions, or have there been lately, so that there may soon be others?"""
        return bool(self._sessions) or time.monotonic() - self._used_s < LINGER_S

    # In the loop

    @property
    def peer(self) -> PeerID:
        """Our own name on the links that there are."""
        if self._host is None:
            raise UnreachableError("this connection has left the swarm")
        return self._host.peer_id

    async def link(self, peer: PeerID, addresses: Sequence[Address]) -> Link:
        """The link to a peer. Raises SwarmError."""
        _, peers = await self._ensure_alive()
        return await peers.connect(peer, addresses)

    def present_link(self, peer: PeerID) -> Link | None:
        return self._peers.link(peer) if self._peers else None

    async def directory(self) -> Directory:
        """The swarm's directory. Raises SwarmError."""
        directory, _ = await self._ensure_alive()
        return directory

    async def _ensure_alive(self) -> tuple[Directory, Peers]:
        """Join the swarm, or join it again if p2pd has ended under us. Raises SwarmError."""
        async with self._lock:
            if self._closed:
                raise UnreachableError("this connection is closed; open another")
            if self._peers and self._directory and self._host and not self._host.ended.is_set():
                return self._directory, self._peers
            if self._peers is not None:
                await self._leave()
                self.view.trust_everybody()  # it was our own p2pd that ended all those links
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
            if self._refresher is None:
                self._refresher = asyncio.create_task(self.scout.keep_fresh(lambda: self.in_use))
            return self._directory, self._peers

    def _meeting_points(self) -> list[PeerAddress]:
        """The initial peers, and every node we have heard of, in case none of those is left."""
        return list({peer.peer: peer for peer in (*self.initial_peers, *self.view.peers)}.values())

    async def _leave(self) -> None:
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
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=FAREWELL_S)
        for ledger in self._ledgers.values():
            await ledger.aclose()
        await self._leave()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:  # hivemind leaves some behind
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # Links

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        if kind is Kind.STATUS:
            self.scout.on_status(link, session, payload)
        elif (known := self._sessions.get(session)) is not None:
            known.on_message(link, kind, payload)

    def on_dead(self, peer: PeerID, reason: str) -> None:
        self.view.set_aside(peer)
        self.scout.alarm()
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
