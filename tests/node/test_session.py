"""Which steps a session takes in, and what it does when its history cannot be read."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.archive import Archive
from nectar_node.errors import GapError, RecordError, StepError
from nectar_node.session import Session
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Neighbours, Open, Step

WIDTH, BATCH, ROOM = 4, 2, 20
OWNER, OTHER = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))
MakeSession = Callable[..., Session]


@pytest.fixture(scope="module")
def session() -> Iterator[MakeSession]:
    """Makes a session that has got so far; it keeps what it receives and sends in a real archive."""
    archive = Archive(1 << 30)

    def make(accepted: int = 0, length: int = 0, pads: tuple[int, ...] = (0,) * BATCH, **others: Any) -> Session:
        request = Open(ModelID(bytes(32)), 0, 2, ROOM, torch.float32, pads, Neighbours(1, None, None))
        record = archive.open(1 << 16)
        assert record is not None
        failed = others.pop("on_failure", lambda session, error: pytest.fail(str(error)))
        return Session(7, OWNER, request, object(), record, 0.0, failed, accepted=accepted, length=length, **others)

    yield make
    archive.close()


def step(
    first: int, last: int, position: int, tokens: int = 1, batch: int = BATCH, reorder: tuple[int, ...] = ()
) -> Step:
    return Step(first, last, position, torch.zeros(batch, tokens, WIDTH), reorder)


@given(
    accepted=st.integers(0, 5),
    length=st.integers(0, ROOM),
    first=st.integers(1, 8),
    more=st.integers(0, 4),
    position=st.integers(0, ROOM + 2),
    tokens=st.integers(1, ROOM + 2),
    batch=st.integers(1, 3),
    width=st.integers(WIDTH - 1, WIDTH + 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    reorder=st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
def test_a_step_is_taken_in_whole_or_leaves_the_session_as_it_was(
    session: MakeSession, accepted: int, length: int, first: int, more: int, position: int, tokens: int, batch: int,
    width: int, dtype: torch.dtype, reorder: tuple[int, ...],
) -> None:  # fmt: skip
    kept = session(accepted, length)
    given_step = Step(first, first + more, position, torch.zeros(batch, tokens, width, dtype=dtype), reorder)
    fits = (
        (batch, width, dtype) == (BATCH, WIDTH, torch.float32)
        and position <= length
        and position + tokens <= ROOM
        and (not reorder or (len(reorder) == BATCH and max(reorder) < BATCH))
    )
    try:
        taken = kept.accept(given_step, WIDTH)
    except GapError:
        assert first > accepted + 1
    except StepError:
        assert accepted < first + more
        assert first <= accepted + 1
        assert not fits
    else:
        assert taken == (first + more > accepted)
        if taken:
            assert fits
            assert first <= accepted + 1
            assert (kept.accepted, kept.length) == (first + more, position + tokens)
            return
    assert (kept.accepted, kept.length) == (accepted, length)


def test_a_step_is_taken_once(session: MakeSession) -> None:
    kept = session()
    assert kept.accept(step(1, 1, 0, 3), WIDTH)
    assert not kept.accept(step(1, 1, 0, 3), WIDTH)
    assert kept.accept(step(2, 2, 3), WIDTH)
    assert not kept.accept(step(1, 1, 0, 3), WIDTH)
    assert (kept.accepted, kept.length) == (2, 4)


def test_a_duplicate_is_not_even_looked_at(session: MakeSession) -> None:
    assert not session(accepted=3, length=5).accept(Step(3, 3, 99, torch.zeros(9, 9, 9)), WIDTH)


def test_a_gap_is_told_apart_from_what_does_not_fit(session: MakeSession) -> None:
    with pytest.raises(GapError, match="step 3 after step 1"):
        session(accepted=1, length=1).accept(step(3, 3, 1), WIDTH)


def test_a_step_that_covers_a_range_is_taken_from_where_the_session_is(session: MakeSession) -> None:
    kept = session()
    assert kept.accept(step(1, 4, 0, 9), WIDTH)
    assert (kept.accepted, kept.length) == (4, 9)
    assert kept.accept(step(3, 6, 5, 5), WIDTH)
    assert (kept.accepted, kept.length) == (6, 10)


def test_an_earlier_position_rolls_back(session: MakeSession) -> None:
    kept = session(accepted=3, length=9)
    assert kept.accept(step(4, 4, 2, 1), WIDTH)
    assert kept.length == 3
    with pytest.raises(StepError, match="positions 9 to 10 in a session that has 3"):
        kept.accept(step(5, 5, 9), WIDTH)


def test_the_last_reserved_position_can_be_used_and_the_next_cannot(session: MakeSession) -> None:
    kept = session()
    assert kept.accept(step(1, 1, 0, ROOM), WIDTH)
    with pytest.raises(StepError, match=f"reserved {ROOM}"):
        kept.accept(step(2, 2, ROOM), WIDTH)


@pytest.mark.parametrize("reorder", [(0,), (0, 1, 1), (0, 2), (5, 0)])
def test_a_reorder_that_is_not_of_this_sessions_rows_is_refused(session: MakeSession, reorder: tuple[int, ...]) -> None:
    with pytest.raises(StepError, match="reorder"):
        session(accepted=1, length=1).accept(step(2, 2, 1, reorder=reorder), WIDTH)


def test_the_predecessor_is_the_owner_until_a_neighbour_is_named(session: MakeSession) -> None:
    kept = session()
    assert kept.predecessor == OWNER
    kept.neighbours = replace(kept.neighbours, prev=PeerID(OTHER))
    assert kept.predecessor == OTHER


def test_rows_go_on_from_each_other_only_where_they_are_padded_alike(session: MakeSession) -> None:
    kept = session(accepted=1, length=1, pads=(3, 0, 3))
    with pytest.raises(StepError, match="different padding"):
        kept.accept(step(2, 2, 1, batch=3, reorder=(1, 1, 2)), WIDTH)
    assert kept.accept(step(2, 2, 1, batch=3, reorder=(2, 1, 2)), WIDTH)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_finite_number_is_refused(session: MakeSession, number: float) -> None:
    kept, wrong = session(), step(1, 1, 0, 3)
    wrong.hidden[1, 2, 3] = number
    with pytest.raises(StepError, match="not finite"):
        kept.accept(wrong, WIDTH)
    assert (kept.accepted, kept.length) == (0, 0)


class Successor:
    """A link that keeps what is sent, and is crowded after so many messages."""

    def __init__(self, room: int) -> None:
        self.room, self.sent = room, list[Step]()
        self.waiting = set[Callable[[], None]]()

    @property
    def crowded(self) -> bool:
        return len(self.sent) >= self.room

    def send(self, session: int, kind: Kind, payload: bytes) -> None:
        self.sent.append(Step.unpack(payload))

    def when_clear(self, callback: Callable[[], None]) -> None:
        self.waiting.add(callback)


def test_a_successor_is_sent_what_it_lacks_as_its_link_takes_it(session: MakeSession) -> None:
    kept, link = session(), Successor(room=2)
    for number in range(1, 6):
        kept.history.append(step(number, number, number - 1))
    kept.pump()
    kept.successor = link  # type: ignore[assignment]  # as much of a link as a session uses
    for _ in range(3):
        kept.pump()
    assert [one.last for one in link.sent] == [1, 2]
    assert len(link.waiting) == 1, "it waits once, however often it was asked"
    link.room = 9
    link.waiting.pop()()
    assert [one.last for one in link.sent] == [1, 2, 3, 4, 5]
    kept.pump()
    assert len(link.sent) == 5


def test_a_history_that_cannot_be_read_ends_the_session_and_nothing_else(session: MakeSession) -> None:
    failures: list[StepError] = []
    kept = session(on_failure=lambda session, error: failures.append(error))
    for number in (1, 2):
        kept.history.append(step(number, number, number - 1)).spill()  # type: ignore[attr-defined]  # in the archive
    kept.record.path.unlink()
    kept.successor = Successor(room=9)  # type: ignore[assignment]
    kept.pump()
    assert [type(error) for error in failures] == [RecordError]
