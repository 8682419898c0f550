"""Whom a connection looks for, and whom it leaves out for a while; no network here."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from nectar import connection as connection_module
from nectar.connection import ASIDE_S, MAX_ASIDE_S, Connection, Effort
from nectar.routing import Candidate
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import Identity, PeerID, peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import UnreachableError

MODEL = ModelID(b"m" * 32)


def announcement(number: int, decode_us: int = 1000, state: NodeState = NodeState.SERVING) -> Announcement:
    node = Identity.from_seed(bytes([number]) * 32).public
    return Announcement(node, MODEL, 0, 1, 0, 4, Profile.F32, state, decode_us, 1, ())


class Offline(Connection):
    """A connection that knows its nodes from us, and meets them without dialling."""

    def __init__(self, nodes: Sequence[Announcement]) -> None:
        super().__init__((), None, 0.0)
        self.found, self.linked = list(nodes), {peer_id(node.node) for node in nodes}
        self.looked_again = 0
        self.silent: set[PeerID] = set()

    async def nodes(self, model: ModelID, *, fresh: bool = False) -> list[Announcement]:
        self.looked_again += fresh
        return self.found

    def present_link(self, peer: PeerID) -> Any:
        return SimpleNamespace(suspected=peer in self.silent) if peer in self.linked else None

    async def _meet(self, node: Announcement) -> Candidate | None:
        return Candidate(peer_id(node.node), (), node.start, node.stop, node.decode_us / 1e6, 0.0)


@pytest.fixture
def offline() -> Iterator[Offline]:
    nodes = [announcement(1, 3000), announcement(2, 1000), announcement(3, 2000), announcement(4)]
    nodes[3] = replace(nodes[3], state=NodeState.JOINING)
    connection = Offline(nodes)
    yield connection
    connection.close()


def found(connection: Offline, effort: Effort) -> list[int]:
    """Which of the nodes are candidates, by number, in the order in which they come."""
    peers = [peer_id(node.node) for node in connection.found]
    candidates = connection.run(connection.candidates(MODEL, effort))
    return [peers.index(candidate.peer) + 1 for candidate in candidates]


def test_nodes_that_serve_are_met_the_fastest_first(offline: Offline) -> None:
    assert found(offline, Effort.MEET) == [2, 3, 1]


def test_only_so_many_are_met(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_MET", 2)
    assert found(offline, Effort.MEET) == [2, 3]


def test_at_hand_are_only_those_with_a_link(offline: Offline) -> None:
    offline.linked = {peer_id(offline.found[0].node)}
    assert found(offline, Effort.AT_HAND) == [1]
    assert found(offline, Effort.MEET) == [2, 3, 1]
    assert offline.looked_again == 0
    found(offline, Effort.LOOK_AGAIN)
    assert offline.looked_again == 1


def test_a_linked_node_that_has_gone_silent_is_not_at_hand(offline: Offline) -> None:
    offline.linked = {peer_id(node.node) for node in offline.found[:2]}
    offline.silent = {peer_id(offline.found[0].node)}
    assert found(offline, Effort.AT_HAND) == [2]


def test_those_set_aside_are_left_out_until_they_are_forgiven_or_trusted_again(offline: Offline) -> None:
    peer = peer_id(offline.found[1].node)

    async def set_aside() -> None:
        offline.set_aside(peer)
        offline._aside[peer] = (float("inf"), 1)

    offline.run(set_aside())
    assert found(offline, Effort.MEET) == found(offline, Effort.LOOK_AGAIN) == [3, 1]
    assert found(offline, Effort.FORGIVE) == [2, 3, 1]
    offline.trust_again(peer)
    assert found(offline, Effort.MEET) == [2, 3, 1]


def test_each_time_in_a_row_is_twice_as_long_up_to_a_minute(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waits() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1000.0)
        for _ in range(9):
            offline.set_aside(PeerID("peer"))
            waited.append(offline._aside[PeerID("peer")][0] - 1000.0)

    waited: list[float] = []
    with asyncio.Runner() as runner:
        runner.run(waits())
        monkeypatch.undo()
    assert waited[:3] == [ASIDE_S, 2 * ASIDE_S, 4 * ASIDE_S]
    assert waited[-1] == MAX_ASIDE_S


def test_a_connection_needs_somebody_to_begin_with() -> None:
    with pytest.raises(UnreachableError, match="no initial peers"):
        Connection.open([])


@pytest.mark.parametrize("address", ["garbage", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/p2p/x"])
def test_an_address_that_is_none_is_refused_before_anything_starts(address: str) -> None:
    with pytest.raises(ProtocolError):
        Connection.open([address])


def test_a_connection_may_be_closed_twice(offline: Offline) -> None:
    offline.close()
    offline.close()
