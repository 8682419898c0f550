"""Links to successors, made because clients ask for them: one client has only so many dials under way at once.

Else a single one could take all the dials that p2pd has, with successors that never answer.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from nectar_protocol.address import Address
from nectar_protocol.identity import PeerID
from nectar_swarm.errors import UnreachableError
from nectar_swarm.link import Link
from nectar_swarm.peers import Peers

MAX_PER_OWNER = 8

Target = tuple[PeerID, tuple[Address, ...]]


class Dials:
    """Lives in the loop of `peers`."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._under_way: defaultdict[PeerID, set[Target]] = defaultdict(set)

    async def connect(self, owner: PeerID, peer: PeerID, addresses: Sequence[Address]) -> Link:
        """The link to a peer, for a session of `owner`. Raises UnreachableError or WireError."""
        target = peer, tuple(addresses)
        if self._peers.link(peer) or target in self._under_way.get(owner, ()):
            return await self._peers.connect(*target)
        if len(self._under_way.get(owner, ())) >= MAX_PER_OWNER:
            raise UnreachableError(f"{MAX_PER_OWNER} peers are being dialled for this client already")
        self._under_way[owner].add(target)
        dial = asyncio.create_task(self._peers.connect(*target))  # which goes on, and counts, if nobody waits any more
        dial.add_done_callback(lambda dial: self._end(owner, target))
        return await asyncio.shield(dial)

    def _end(self, owner: PeerID, target: Target) -> None:
        self._under_way[owner].discard(target)
        if not self._under_way[owner]:
            del self._under_way[owner]
