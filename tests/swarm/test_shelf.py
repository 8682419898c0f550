"""What a peer keeps for others has bounds, and nobody can push out or cut short what is there."""

from collections.abc import Iterator

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils.serializer import MSGPackSerializer
from nectar_protocol.identity import PeerID
from nectar_swarm import shelf as shelf_module
from nectar_swarm.answers import Stored
from nectar_swarm.shelf import SWEEP_S, Shelf

from tests.clock import Clock

KEY, OTHER = DHTID.generate(source="a"), DHTID.generate(source="b")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Shelf]:
    """Room for 3 records under a key, and for 5 in all."""
    monkeypatch.setattr(shelf_module, "MAX_PER_KEY", 3)
    monkeypatch.setattr(shelf_module, "MAX_RECORDS", 5)
    return Shelf(clock)


def fill(shelf: Shelf, key: DHTID, count: int, expires_s: float = 1100.0) -> list[bool]:
    nodes = [PeerID(f"node{number}") for number in range(count)]
    return [shelf.store(key, b"value", expires_s, node, node) for node in nodes]


def test_what_came_first_stays_when_a_key_is_full(small: Shelf) -> None:
    assert fill(small, KEY, 10) == [True] * 3 + [False] * 7
    assert [record.subkey for record in small.records(KEY)] == ["node0", "node1", "node2"]


def test_all_keys_together_have_a_bound_too(small: Shelf) -> None:
    assert fill(small, KEY, 3) == [True] * 3
    assert fill(small, OTHER, 3) == [True, True, False]
    assert small.count == 5


def test_on_a_full_shelf_everybody_can_renew_what_is_there(small: Shelf) -> None:
    fill(small, KEY, 5)
    assert small.store(KEY, b"newer", 1110.0, "node1", PeerID("node1"))
    assert small.records(KEY)[1] == Stored("node1", b"newer", 1110.0)
    assert small.count == 3


def test_our_own_always_has_room(small: Shelf) -> None:
    fill(small, KEY, 5)
    assert small.store(KEY, b"own", 1100.0, "we")
    assert small.records(KEY)[-1].subkey == "we"


def test_an_older_record_that_is_stored_again_neither_replaces_the_newer_nor_ends_it(
    small: Shelf, clock: Clock
) -> None:
    assert small.store(KEY, b"newer", 1100.0, "node")
    assert not small.store(KEY, b"older", 1010.0, "node")
    clock.now_s = 1011.0
    assert not small.store(KEY, b"expired", 1010.0, "other")
    assert small.records(KEY) == [Stored("node", b"newer", 1100.0)]


def test_the_same_may_be_stored_again_and_takes_no_more_room(small: Shelf) -> None:
    assert [small.store(KEY, b"same", 1100.0, "node") for _ in range(100)] == [True] * 100
    assert small.count == 1


def test_what_has_expired_gives_its_room_back(small: Shelf, clock: Clock) -> None:
    fill(small, KEY, 3, 1010.0)
    assert small.answer(KEY) is not None
    clock.now_s = 1010.0 + SWEEP_S
    assert fill(small, KEY, 1) == [True]
    assert [len(small.records(KEY)), small.count] == [1, 1]
    clock.now_s = 1200.0
    assert not small.has_room(OTHER, None, 1300.0)  # but it looks around
    assert small.answer(KEY) is None
    assert small.count == small.size(KEY) == 0


def test_a_peer_brings_only_so_many_and_may_renew_them(small: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "MAX_PER_PEER", 2)
    one, other = PeerID("one"), PeerID("other")
    assert [small.store(KEY, b"value", 1100.0, subkey, one) for subkey in "aba"] == [True] * 3
    assert not small.store(OTHER, b"value", 1100.0, "c", one)
    assert small.store(KEY, b"newer", 1110.0, "a", other)  # the index's records are anybody's
    assert not small.store(KEY, b"older", 1100.0, "a", one)
    assert small.store(OTHER, b"value", 1100.0, "c", one)
    assert small.count == 3


def test_without_a_subkey_nothing_is_kept(small: Shelf) -> None:
    assert not small.store(KEY, b"value", 1100.0, None)


def test_answers_are_those_of_hivemind(small: Shelf) -> None:
    theirs = DictionaryDHTValue()
    for subkey, expires_s in (("a", 4e9), ("b", 3e9)):
        small.store(KEY, b"value", expires_s, subkey)
        theirs.store(subkey, b"value", expires_s)
    assert small.answer(KEY) == (MSGPackSerializer.dumps(theirs), 4e9)
    assert small.answer(OTHER) is None
    small.store(KEY, b"newer", 5e9, "a")
    assert small.answer(KEY) != (MSGPackSerializer.dumps(theirs), 4e9)


def test_new_peers_are_handed_nothing(small: Shelf) -> None:
    fill(small, KEY, 3)
    assert list(small.items()) == []
