"""Whom a client finds, and what it makes of what they say: nodes made by hand on real links."""

import asyncio
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from nectar import scout as scout_module
from nectar.connection import Connection
from nectar.routing import Candidate
from nectar.scout import SLOW_S, Effort
from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.directory import LIFE_MS
from nectar_swarm.errors import SwarmError

from tests.client.node import KV, MODEL, Node
from tests.client.swarm import Swarm, eventually

WHOLE = (0, 6)


def met(connection: Connection, effort: Effort, trusted: frozenset[PeerID] = frozenset()) -> dict[PeerID, Candidate]:
    found = connection.run(connection.scout.candidates(MODEL, effort, trusted=trusted))
    return {candidate.peer: candidate for candidate in found}


@pytest.fixture
def readings(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each reading of the directory."""
    directory, count = connection.run(connection.directory()), list[str]()
    nodes = directory.nodes

    async def read(model: object, known: object) -> object:
        count.append("read")
        return await nodes(model, known)

    monkeypatch.setattr(directory, "nodes", read)
    return count


def test_nodes_that_serve_are_met_and_say_how_they_are(swarm: Swarm, connection: Connection) -> None:
    one, other, joining = swarm.nodes[:3]
    one.kv_free, one.wait_us, one.decode_us = 77, 1500, 2500
    swarm.run(one.serve(0, 4, decode_us=9))
    swarm.run(other.serve(2, 6, decode_us=8000))
    swarm.run(joining.serve(*WHOLE, state=NodeState.JOINING))
    found = met(connection, Effort.MEET)
    assert found.keys() == {one.peer, other.peer}
    told, silent = found[one.peer], found[other.peer]
    assert (told.start, told.stop, told.kv_free, told.wait_s, told.decode_s) == (0, 4, 77, 0.0015, 0.0025)
    assert told.kv_total == KV
    assert (silent.wait_s, silent.decode_s) == (0.0, 0.008)  # what it announced, since it has not measured
    link = connection.present_link(one.peer)
    assert link is not None
    assert told.rtt_s == link.rtt_s


def test_a_node_that_does_not_answer_counts_as_slow_and_not_as_lost(
    swarm: Swarm, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scout_module, "ASK_S", 0.05)
    mute = swarm.nodes[1]
    mute.mute = True
    swarm.run(mute.serve(*WHOLE))
    found = met(connection, Effort.MEET)[mute.peer]
    assert (found.wait_s, found.kv_free) == (SLOW_S, None)
    assert not connection.view.is_aside(mute.peer)


def test_at_hand_are_only_those_with_a_link_that_have_not_gone_silent(
    swarm: Swarm, connection: Connection, readings: list[str]
) -> None:
    one, other = swarm.nodes[1:3]
    swarm.run(one.serve(*WHOLE))
    assert met(connection, Effort.AT_HAND) == {}
    assert met(connection, Effort.MEET).keys() == {one.peer}
    swarm.run(other.serve(*WHOLE))
    assert met(connection, Effort.AT_HAND).keys() == {one.peer}
    link = connection.present_link(one.peer)
    assert link is not None

    async def silent() -> list[Candidate]:
        link.suspected = True
        return await connection.scout.candidates(MODEL, Effort.AT_HAND)

    assert connection.run(silent()) == []
    assert len(readings) == 1
    eventually(lambda: met(connection, Effort.LOOK_AGAIN).keys() == {one.peer, other.peer})
    assert len(readings) > 1


def test_a_repair_goes_by_what_nodes_at_hand_said_lately_if_that_will_do(
    swarm: Swarm, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scout_module, "ASK_S", 0.05)
    node, other = swarm.nodes[1:3]
    for one in (node, other):
        swarm.run(one.serve(*WHOLE))
    assert met(connection, Effort.MEET).keys() == {node.peer, other.peer}
    node.mute = True
    connection.view.leave_alone(other.peer, 30.0)

    def at_hand(enough: int = 1) -> dict[PeerID, Candidate]:
        found = connection.run(
            connection.scout.candidates(MODEL, Effort.AT_HAND, enough=lambda met: len(met) >= enough)
        )
        return {candidate.peer: candidate for candidate in found}

    recent = at_hand()
    assert {peer: (one.kv_free, one.busy_from) for peer, one in recent.items()} == {
        node.peer: (KV, None),
        other.peer: (KV, 0),
    }
    assert at_hand(enough=3)[node.peer].kv_free is None, "not enough: all are asked"
    connection.view._aside[node.peer] = (float("inf"), 1)
    assert at_hand().keys() == {other.peer}
    connection.view.trust_everybody()
    swarm.run(node.serve(0, 3))

    def read() -> bool:
        connection.run(connection.scout.nodes(MODEL, fresh=True))
        return connection.view.nodes(MODEL)[node.peer].stop == 3

    eventually(read)
    assert at_hand().keys() == {other.peer}, "it was asked when it served other blocks"
    monkeypatch.setattr(scout_module, "RECENT_S", 0.0)
    assert at_hand()[node.peer].kv_free is None, "too long ago"


def test_those_set_aside_are_left_out_until_they_are_forgiven(swarm: Swarm, connection: Connection) -> None:
    node = swarm.nodes[1]
    swarm.run(node.serve(*WHOLE))
    met(connection, Effort.MEET)
    connection.view.set_aside(node.peer)
    connection.view._aside[node.peer] = (float("inf"), 1)
    assert met(connection, Effort.MEET) == met(connection, Effort.LOOK_AGAIN) == {}
    assert met(connection, Effort.FORGIVE).keys() == {node.peer}


def test_who_cannot_be_met_is_set_aside(swarm: Swarm, connection: Connection) -> None:
    dead = swarm.nodes[1]
    swarm.run(dead.serve(*WHOLE))
    swarm.kill(dead)
    assert met(connection, Effort.MEET) == {}
    assert connection.view.is_aside(dead.peer)


def test_a_busy_node_is_named_as_one(swarm: Swarm, connection: Connection) -> None:
    node = swarm.nodes[1]
    swarm.run(node.serve(*WHOLE))
    connection.view.leave_alone(node.peer, 60.0)
    assert met(connection, Effort.FORGIVE)[node.peer].busy_from == 0


def test_only_so_many_are_met_but_trusted_ones_and_somebody_for_every_block(
    swarm: Swarm, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scout_module, "MAX_MET", 1)
    first, second, slow, slower = swarm.nodes[1:5]
    swarm.run(first.serve(0, 4))
    swarm.run(second.serve(4, 6))
    swarm.run(slow.serve(*WHOLE, decode_us=10_000_000))
    swarm.run(slower.serve(*WHOLE, decode_us=20_000_000))
    assert met(connection, Effort.MEET).keys() == {first.peer, second.peer}
    trusted = frozenset({slower.peer})
    assert met(connection, Effort.MEET, trusted).keys() == {first.peer, second.peer, slower.peer}


@pytest.fixture
def black_hole() -> Iterator[Address]:
    """An address that takes calls and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield Address(IPv4Address("127.0.0.1"), listening.getsockname()[1])


def test_nobody_waits_for_the_slowest_dial_when_those_at_hand_are_enough(
    swarm: Swarm, connection: Connection, black_hole: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scout_module, "GRACE_S", 0.1)
    near = swarm.nodes[1]
    swarm.run(near.serve(*WHOLE))
    now_ms = time.time_ns() // 1_000_000
    lost = Identity.generate()
    said = Announcement(
        lost.public, MODEL, now_ms, now_ms + LIFE_MS, *WHOLE, Profile.F32, NodeState.SERVING, 1, 1, (black_hole,)
    )
    swarm.run(near.directory.announce(said.signed(lost)))  # others keep what is their own
    scout = connection.scout
    look = scout.candidates(MODEL, Effort.MEET, enough=lambda found: near.peer in {one.peer for one in found})
    assert [one.peer for one in connection.run(look)] == [near.peer]
    assert set(scout._meeting) == {(MODEL, lost.peer_id)}  # the other is still being dialled
    eventually(lambda: connection.view.is_aside(lost.peer_id))


def test_a_slow_directory_hides_nobody_and_is_read_on_for_the_next_time(
    swarm: Swarm, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = swarm.nodes[1:3]
    swarm.run(one.serve(*WHOLE))
    assert met(connection, Effort.MEET).keys() == {one.peer}
    swarm.run(other.serve(*WHOLE))
    directory, released = connection.run(connection.directory()), asyncio.Event()
    nodes = directory.nodes

    async def read(model: ModelID, known: set[PeerID]) -> list[Announcement]:
        await released.wait()
        return await nodes(model, known)

    monkeypatch.setattr(directory, "nodes", read)
    monkeypatch.setattr(scout_module, "FRESH_S", -1.0)
    monkeypatch.setattr(scout_module, "LOOK_S", 1.0)
    assert met(connection, Effort.LOOK_AGAIN).keys() == {one.peer}
    connection.call(released.set)
    eventually(lambda: met(connection, Effort.MEET).keys() == {one.peer, other.peer})


def test_all_who_want_to_know_at_once_share_one_reading(
    swarm: Swarm, connection: Connection, readings: list[str]
) -> None:
    swarm.run(swarm.nodes[1].serve(*WHOLE))

    async def look() -> None:
        await asyncio.gather(*(connection.scout.nodes(MODEL, fresh=True) for _ in range(5)))

    connection.run(look())
    assert len(readings) == 1
    connection.run(look())
    assert len(readings) == 1  # as of half a second ago at most


def test_a_directory_that_cannot_be_read_hides_nobody(
    swarm: Swarm, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(model: object, known: object) -> None:
        raise SwarmError("no")

    directory = connection.run(connection.directory())
    swarm.run(swarm.nodes[1].serve(*WHOLE))
    met(connection, Effort.MEET)
    monkeypatch.setattr(directory, "nodes", fail)
    monkeypatch.setattr(scout_module, "FRESH_S", -1.0)
    assert met(connection, Effort.LOOK_AGAIN).keys() == {swarm.nodes[1].peer}
    connection.view._known.clear()
    with pytest.raises(SwarmError, match="no"):
        met(connection, Effort.LOOK_AGAIN)


def test_a_node_that_comes_back_on_another_port_is_linked_before_it_is_needed(
    swarm: Swarm, connection: Connection, three: list[Node]
) -> None:
    node = three[1]
    connection.add(Bystander())
    met(connection, Effort.MEET)
    before = connection.present_link(node.peer)
    assert before is not None
    swarm.run(node.close())
    eventually(lambda: connection.present_link(node.peer) is None)
    old = node.at
    swarm.start(node)
    assert node.at != old
    swarm.run(node.serve(2, 4))
    eventually(lambda: [one for one in met(connection, Effort.AT_HAND).values() if one.addresses == node.at.addresses])


class Bystander:
    """A session that wants nothing."""

    def on_message(self, *arguments: object) -> None: ...

    def on_dead(self, *arguments: object) -> None: ...

    def abandon(self) -> None: ...
