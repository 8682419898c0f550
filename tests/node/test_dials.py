"""One client cannot have its node dial without end."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from nectar_node.dials import MAX_PER_OWNER, Dials
from nectar_protocol.address import Address
from nectar_protocol.identity import Identity, PeerID
from nectar_swarm.errors import UnreachableError

OWNER, OTHER, TARGET = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2, 3))


class Silent:
    """Peers none of which answers before the test says so."""

    def __init__(self) -> None:
        self.dialled: list[PeerID] = []
        self.links: dict[PeerID, str] = {}
        self.answer = asyncio.Event()

    def link(self, peer: PeerID) -> Any:
        return self.links.get(peer)

    async def connect(self, peer: PeerID, addresses: Sequence[Address]) -> Any:
        if peer not in self.links:
            self.dialled.append(peer)
            await self.answer.wait()
        return self.links.setdefault(peer, f"link to {peer}")


async def begin(dials: Dials, owner: PeerID, peers: Sequence[PeerID]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(dials.connect(owner, peer, ())) for peer in peers]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def strangers(count: int) -> list[PeerID]:
    return [Identity.generate().peer_id for _ in range(count)]


async def test_one_client_has_only_so_many_dials_under_way() -> None:
    peers: Any = Silent()
    dials = Dials(peers)
    waiting = await begin(dials, OWNER, strangers(MAX_PER_OWNER))
    with pytest.raises(UnreachableError, match="dialled for this client already"):
        await dials.connect(OWNER, TARGET, ())
    waiting += await begin(dials, OTHER, [TARGET])
    assert peers.dialled[-1] == TARGET
    peers.answer.set()
    assert await asyncio.gather(*waiting) == [f"link to {peer}" for peer in peers.dialled]
    assert not dials._under_way


async def test_a_dial_counts_until_it_ends_though_nobody_waits_for_it_any_more() -> None:
    peers: Any = Silent()
    dials = Dials(peers)
    for task in await begin(dials, OWNER, strangers(MAX_PER_OWNER)):
        task.cancel()
    await asyncio.sleep(0)
    with pytest.raises(UnreachableError):
        await dials.connect(OWNER, TARGET, ())
    peers.answer.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert await dials.connect(OWNER, TARGET, ()) == f"link to {TARGET}"


async def test_many_sessions_of_one_client_may_wait_for_the_same_successor_and_use_links_that_are_there() -> None:
    peers: Any = Silent()
    dials = Dials(peers)
    peers.links[OTHER] = "there"
    waiting = await begin(dials, OWNER, [TARGET] * 100 + strangers(MAX_PER_OWNER - 1))
    assert await dials.connect(OWNER, OTHER, ()) == "there"
    peers.answer.set()
    assert set(await asyncio.gather(*waiting[:100])) == {f"link to {TARGET}"}
    await asyncio.gather(*waiting)
