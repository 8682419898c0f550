"""A peer that serves no blocks: it introduces peers to each other, keeps directory records, and relays."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from nectar_protocol.identity import PeerID

from nectar_swarm.host import Listen
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.membership import Membership, Place
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.reachability import Reachability
from nectar_swarm.waiting import first_of


async def run_bootstrap(
    key_file: Path,
    listen: Listen,
    initial_peers: Sequence[PeerAddress],
    allowed: frozenset[PeerID] | None,
    stop: asyncio.Event,
    on_ready: Callable[[list[str]], None],
) -> None:
    """Until `stop` is set. Raises SwarmError for what keeps it from starting."""
    identity = load_or_create_key(key_file)
    allowed = None if allowed is None else allowed | {identity.peer_id}
    membership = Membership(key_file, listen, initial_peers, allowed=allowed, reachability=Reachability.PUBLIC)

    async def introduce(place: Place) -> None:
        on_ready([f"{address}/p2p/{place.host.peer_id}" for address in await place.addresses()])
        membership.settled = True
        await first_of(stop.wait(), place.host.ended.wait())

    await membership.run(stop, introduce)
