"""A peer's lasting place in a swarm: p2pd, the directory and relays, begun again whenever p2pd ends.

A peer that others can dial relays for those that nobody can. One that nobody can dial keeps reservations at such
peers, and only reads and writes in the directory instead of being a part of it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from nectar_protocol.address import MAX_ADDRESSES, Address
from nectar_protocol.identity import PeerID

from nectar_swarm.directory import Directory, connect_any, meeting_points
from nectar_swarm.errors import SwarmError, UnreachableError
from nectar_swarm.host import Host, Listen
from nectar_swarm.keyfile import hold_key
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.reachability import Reachability, find_out
from nectar_swarm.relay import Relay
from nectar_swarm.reservation import Reservations
from nectar_swarm.waiting import first_of

RESTART_S = 1.0
RESERVED_S = 20.0
MAX_KNOWN = 256
MAX_ASKED = 4

log = logging.getLogger(__name__)


class Place:
    """What a member has while one p2pd lives. `moved` is set when `addresses` has changed."""

    def __init__(
        self, host: Host, directory: Directory, seen: Address | None, reservations: Reservations | None
    ) -> None:
        self.host, self.directory = host, directory
        self.moved = reservations.changed if reservations else asyncio.Event()
        self._seen, self._reservations = seen, reservations

    async def addresses(self) -> tuple[Address, ...]:
        """Where others can reach us, the most useful first."""
        if self._reservations is not None:
            return self._reservations.addresses
        seen = () if self._seen is None or self._seen.ip.is_loopback else (self._seen,)
        return tuple(dict.fromkeys((*seen, *await self.host.addresses())))[:MAX_ADDRESSES]


class Membership:
    """`settled` is for who serves: once set, the member comes back whatever happens, and needs no peer for that."""

    def __init__(
        self,
        key_file: Path,
        listen: Listen,
        initial_peers: Sequence[PeerAddress],
        *,
        allowed: frozenset[PeerID] | None = None,
        reachability: Reachability = Reachability.AUTO,
    ) -> None:
        self.settled = False
        self.peers = tuple(initial_peers)
        self.allowed = allowed
        self._key_file, self._listen, self._initial_peers = key_file, listen, tuple(initial_peers)
        self._reachability = reachability
        self._hidden = reachability is Reachability.PRIVATE
        self._seen: Address | None = None

    def remember(self, peers: Iterable[PeerAddress]) -> None:
        """Note who can be dialled, to find the swarm again if it is lost, and to be relayed. Of many only some."""
        initial = {peer.peer: peer for peer in self._initial_peers}
        dialled = (peer for peer in peers if any(address.relay is None for address in peer.addresses))
        others = {peer.peer: peer for peer in (*self.peers, *dialled) if peer.peer not in initial}
        self.peers = (*initial.values(), *_some(others.values(), MAX_KNOWN - len(initial)))

    def some(self, most: int) -> list[PeerAddress]:
        """Some of those that are known, up to half of them initial peers: thousands of false ones would hide these."""
        initial = _some(self._initial_peers, most // 2)
        others = [peer for peer in self.peers if peer not in initial]
        return initial + _some(others, most - len(initial))

    async def run(self, stop: asyncio.Event, serve: Callable[[Place], Awaitable[None]]) -> None:
        """Call `serve` in every place until `stop` is set; it returns then, or when p2pd has ended.

        Raises SwarmError for what keeps us from settling.
        """
        with hold_key(self._key_file):
            while not stop.is_set():
                try:
                    await self._join(serve)
                except SwarmError as error:
                    if not self.settled:
                        raise
                    log.warning("cannot come back yet: %s", error)
                if not stop.is_set():
                    log.warning("the libp2p daemon has ended; starting it again")
                    await first_of(stop.wait(), timeout_s=RESTART_S)

    async def _join(self, serve: Callable[[Place], Awaitable[None]]) -> None:
        async with AsyncExitStack() as stack:
            host = await Host.start(key_file=self._key_file, listen=self._listen)
            stack.push_async_callback(host.close)
            addresses = await host.addresses()
            if not self._listen.port and addresses:  # whatever happens to p2pd, peers find us where we were
                self._listen = replace(self._listen, port=addresses[0].port)
            if self._reachability is Reachability.AUTO and not self._listen.announce:
                await self._find_out(host)
            directory = await Directory.join(
                host, self.peers, reader=self._hidden, alone=self.settled, allowed=self.allowed
            )
            stack.push_async_callback(directory.close)
            reservations = None
            if self._hidden:
                reservations = Reservations(host, lambda: meeting_points(self.peers))
                stack.push_async_callback(reservations.close)
                await reservations.start()
                await self._wait_for_relay(reservations)
            else:
                await Relay(host, self.allowed).start()
            await serve(Place(host, directory, self._seen, reservations))

    async def _find_out(self, host: Host) -> None:
        """Without an answer, what was known before stays."""
        met = await connect_any(host, meeting_points(self.peers)[:MAX_ASKED])
        verdict = await find_out(host, met, self._listen.port)
        if verdict is None:
            return
        if verdict.hidden and not self._hidden:
            log.warning("peers cannot dial port %d of this machine; serving through relays", self._listen.port)
        self._hidden, self._seen = verdict.hidden, verdict.seen

    async def _wait_for_relay(self, reservations: Reservations) -> None:
        """Raises UnreachableError if we are new here and nobody relays for us."""
        await first_of(reservations.changed.wait(), timeout_s=RESERVED_S)
        reservations.changed.clear()
        if not reservations.addresses and not self.settled:
            raise UnreachableError(
                "nobody can dial this machine, and no initial peer relays for it: open its port, "
                "or run `nectar bootstrap` where others can dial it"
            )


def _some(peers: Collection[PeerAddress], most: int) -> list[PeerAddress]:
    return random.sample(list(peers), max(0, min(len(peers), most)))
