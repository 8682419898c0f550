"""What a client remembers: the newest word of every node until it expires, and for a while who failed or was busy."""

import time
from ipaddress import IPv4Address
from typing import Any

import pytest
from nectar import view as view_module
from nectar.view import ASIDE_S, BUSY_S, MAX_ASIDE_S, View
from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import Identity, peer_id
from nectar_protocol.manifest import ModelID

from tests.clock import Clock

MODEL, OTHER = ModelID(b"m" * 32), ModelID(b"o" * 32)
HERE, THERE = (Address(IPv4Address("192.0.2.1"), port) for port in (1, 2))
NODES = [Identity.from_seed(bytes([number]) * 32).public for number in range(3)]
PEER = peer_id(NODES[0])


@pytest.fixture
def view(clock: Clock) -> View:
    return View(clock)


def announcement(number: int = 0, **changes: Any) -> Announcement:
    now_ms = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "issued_ms": now_ms, "expires_ms": now_ms + 60_000, "state": NodeState.SERVING, "decode_us": 1,
        "addresses": (HERE,),
    }  # fmt: skip
    return Announcement(NODES[number], MODEL, start=0, stop=4, profile=Profile.F32, prefill_us=1, **fields | changes)


def test_the_newest_word_of_each_node_counts(view: View) -> None:
    now_ms = int(time.time() * 1000)
    old, new = announcement(issued_ms=now_ms - 5), announcement(issued_ms=now_ms, decode_us=7)
    other = announcement(1)
    view.learn(MODEL, [new, other])
    view.learn(MODEL, [old])
    assert list(view.nodes(MODEL).values()) == [new, other]
    assert view.nodes(OTHER) == {}
    assert view.models == [MODEL]


def test_of_too_many_only_those_are_kept_that_the_directory_holds_now(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "MAX_KNOWN", 3)
    first, second, third = (announcement(number) for number in range(3))
    view.learn(MODEL, [first, second])
    view.learn(MODEL, [third])
    assert list(view.nodes(MODEL).values()) == [first, second, third]
    view.learn(MODEL, [second])
    assert list(view.nodes(MODEL).values()) == [second]


def test_what_the_directory_no_longer_holds_counts_until_it_expires(view: View) -> None:
    gone, expired = announcement(0), announcement(1, issued_ms=1, expires_ms=2)
    view.learn(MODEL, [gone, expired])
    view.learn(MODEL, [])
    assert view.nodes(MODEL) == {PEER: gone}
    assert [at.peer for at in view.peers] == [PEER]


def test_who_leaves_is_no_node_to_go_to(view: View) -> None:
    view.learn(MODEL, [announcement(0, state=NodeState.LEAVING), announcement(1, state=NodeState.JOINING)])
    assert [node.state for node in view.nodes(MODEL).values()] == [NodeState.JOINING]


def test_the_age_is_that_of_the_last_reading(view: View, clock: Clock) -> None:
    assert view.age_s(MODEL) == float("inf")
    view.learn(MODEL, [])
    clock.now_s += 7
    assert view.age_s(MODEL) == 7
    assert view.age_s(OTHER) == float("inf")


def test_each_failure_in_a_row_sets_aside_for_twice_as_long_up_to_a_minute(view: View, clock: Clock) -> None:
    for times in range(9):
        wait_s = min(ASIDE_S * 2**times, MAX_ASIDE_S)
        view.set_aside(PEER)
        clock.now_s += wait_s - 0.01
        assert view.is_aside(PEER)
        clock.now_s += 0.02
        assert not view.is_aside(PEER)


def test_what_fails_while_it_is_set_aside_is_one_failure(view: View, clock: Clock) -> None:
    for _ in range(5):  # five sessions through the same node
        view.set_aside(PEER)
    clock.now_s += ASIDE_S
    assert not view.is_aside(PEER)
    view.set_aside(PEER)
    clock.now_s += ASIDE_S
    assert view.is_aside(PEER)


def test_success_begins_a_new_row(view: View, clock: Clock) -> None:
    for _ in range(4):
        view.set_aside(PEER)
        clock.now_s += MAX_ASIDE_S
    view.trust_again(PEER)
    assert not view.is_aside(PEER)
    view.set_aside(PEER)
    clock.now_s += ASIDE_S
    assert not view.is_aside(PEER)


def test_so_does_a_minutes_peace(view: View, clock: Clock) -> None:
    view.set_aside(PEER)
    clock.now_s += ASIDE_S
    view.set_aside(PEER)
    clock.now_s += 2 * ASIDE_S + MAX_ASIDE_S + 0.1
    view.set_aside(PEER)
    clock.now_s += ASIDE_S
    assert not view.is_aside(PEER)


def test_a_node_that_is_somewhere_else_now_has_not_failed_there(view: View) -> None:
    now_ms = int(time.time() * 1000)
    view.learn(MODEL, [announcement(issued_ms=now_ms - 5)])
    view.set_aside(PEER)
    view.learn(MODEL, [announcement(issued_ms=now_ms)])
    assert view.is_aside(PEER)
    view.learn(MODEL, [announcement(issued_ms=now_ms + 1, addresses=(THERE,))])
    assert not view.is_aside(PEER)


def test_all_are_trusted_again_when_it_was_not_they_who_failed(view: View) -> None:
    for node in NODES:
        view.set_aside(peer_id(node))
    view.trust_everybody()
    assert not any(view.is_aside(peer_id(node)) for node in NODES)


@pytest.mark.parametrize(("said_s", "wait_s"), [(5.0, 5.0), (0.0, BUSY_S), (1e6, MAX_ASIDE_S)])
def test_a_busy_node_is_left_alone_for_as_long_as_it_says_within_bounds(
    view: View, clock: Clock, said_s: float, wait_s: float
) -> None:
    view.leave_alone(PEER, said_s)
    assert view.busy_from(PEER) == 0
    assert not view.is_aside(PEER)
    clock.now_s += wait_s - 0.01
    assert view.busy_from(PEER) == 0
    clock.now_s += 0.02
    assert view.busy_from(PEER) is None


def test_who_was_too_small_for_a_large_session_is_asked_by_smaller_ones(view: View) -> None:
    view.leave_alone(PEER, 30.0, 1000)
    assert view.busy_from(PEER) == 1000
    view.leave_alone(PEER, 30.0, 10)
    view.leave_alone(PEER, 30.0, 500)
    assert view.busy_from(PEER) == 10
