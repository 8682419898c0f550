"""Steps that came too early wait for their session, bounded in number, size and time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node import parking
from nectar_node.parking import Parked, Parking
from nectar_protocol.identity import PeerID

A, B = PeerID("a"), PeerID("b")


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 2), st.binary(max_size=3)), max_size=20))
def test_each_peers_frames_for_a_session_are_given_back_in_order_and_once(
    frames: list[tuple[PeerID, int, bytes]],
) -> None:
    async def check() -> None:
        refused: list[Parked] = []
        waiting = Parking(refused.append)
        for frame in frames:
            waiting.park(*frame)
        for peer in (A, B):
            for session in range(3):
                sent = [payload for to, number, payload in frames if (to, number) == (peer, session)]
                assert waiting.take(session, peer) == sent
                assert waiting.take(session, peer) == []
        assert refused == []
        assert waiting._bytes == 0

    asyncio.run(check())


async def test_what_nobody_takes_is_refused_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_S", 0.0)
    refused: asyncio.Queue[Parked] = asyncio.Queue()
    waiting = Parking(refused.put_nowait)
    waiting.park(A, 1, b"taken")
    assert waiting.take(1, A) == [b"taken"]
    waiting.park(A, 2, b"first")
    waiting.park(B, 2, b"second")
    late = [await refused.get(), await refused.get()]
    assert [(one.peer, one.session, one.payload) for one in late] == [(A, 2, b"first"), (B, 2, b"second")]
    assert refused.empty()
    assert waiting.take(2, A) == []
    assert waiting._bytes == 0


async def test_equal_frames_are_refused_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_S", 0.0)
    refused: asyncio.Queue[Parked] = asyncio.Queue()
    waiting = Parking(refused.put_nowait)
    for _ in range(3):
        waiting.park(A, 1, b"same")
    late = [await refused.get() for _ in range(3)]
    assert len(set(map(id, late))) == 3


async def test_too_many_frames_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_FRAMES", 2)
    refused: list[Parked] = []
    waiting = Parking(refused.append)
    for number in range(4):
        waiting.park(A, number, b"x")
    assert [one.session for one in refused] == [2, 3]
    waiting.take(0, A)
    waiting.park(A, 4, b"x")
    assert len(refused) == 2


async def test_too_many_bytes_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_BYTES", 10)
    refused: list[Parked] = []
    waiting = Parking(refused.append)
    waiting.park(A, 1, bytes(10))
    waiting.park(A, 2, b"x")
    assert [one.session for one in refused] == [2]
    assert waiting.take(1, A) == [bytes(10)]
    waiting.park(A, 3, bytes(10))
    assert len(refused) == 1


async def test_when_all_is_full_whoever_parks_most_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_FRAMES", 4)
    refused: list[Parked] = []
    waiting = Parking(refused.append)
    for number in range(4):
        waiting.park(A, number, b"x")
    waiting.park(B, 7, b"x")
    waiting.park(B, 8, b"x")
    waiting.park(B, 9, b"x")
    assert [(one.peer, one.session) for one in refused] == [(A, 3), (A, 2), (B, 9)]
    assert waiting.take(7, B) == waiting.take(0, A) == [b"x"]


async def test_one_peer_cannot_fill_the_parking_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "MAX_FRAMES_PER_PEER", 2)
    monkeypatch.setattr(parking, "MAX_BYTES_PER_PEER", 10)
    refused: list[Parked] = []
    waiting = Parking(refused.append)
    for payload in (b"one", b"two", b"three"):
        waiting.park(A, 1, payload)
    waiting.park(B, 1, b"x" * 11)
    waiting.park(B, 1, b"fits")
    assert [(one.peer, one.payload) for one in refused] == [(A, b"three"), (B, b"x" * 11)]
    assert waiting.take(1, A) == [b"one", b"two"]
    assert waiting.take(1, B) == [b"fits"]
