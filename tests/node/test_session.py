"""Which steps a session takes in, and which positions its rows have."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.errors import GapError, StepError
from nectar_node.session import Session
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.messages import Neighbours, Open, Step
from transformers import DynamicCache

WIDTH, BATCH, ROOM = 4, 2, 20
CPU = torch.device("cpu")
OWNER, OTHER = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))


def session(accepted: int = 0, length: int = 0, pads: tuple[int, ...] = (0,) * BATCH) -> Session:
    request = Open(ModelID(bytes(32)), 0, 2, ROOM, torch.float32, pads, Neighbours(1, None, None))
    return Session(7, OWNER, request, DynamicCache(), len(pads) * ROOM, 0.0, accepted=accepted, length=length)


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
    accepted: int, length: int, first: int, more: int, position: int, tokens: int, batch: int, width: int,
    dtype: torch.dtype, reorder: tuple[int, ...],
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


def test_a_step_is_taken_once() -> None:
    kept = session()
    assert kept.accept(step(1, 1, 0, 3), WIDTH)
    assert not kept.accept(step(1, 1, 0, 3), WIDTH)
    assert kept.accept(step(2, 2, 3), WIDTH)
    assert not kept.accept(step(1, 1, 0, 3), WIDTH)
    assert (kept.accepted, kept.length) == (2, 4)


def test_a_duplicate_is_not_even_looked_at() -> None:
    assert not session(accepted=3, length=5).accept(Step(3, 3, 99, torch.zeros(9, 9, 9)), WIDTH)


def test_a_gap_is_told_apart_from_what_does_not_fit() -> None:
    with pytest.raises(GapError, match="step 3 after step 1"):
        session(accepted=1, length=1).accept(step(3, 3, 1), WIDTH)


def test_a_step_that_covers_a_range_is_taken_from_where_the_session_is() -> None:
    kept = session()
    assert kept.accept(step(1, 4, 0, 9), WIDTH)
    assert (kept.accepted, kept.length) == (4, 9)
    assert kept.accept(step(3, 6, 5, 5), WIDTH)
    assert (kept.accepted, kept.length) == (6, 10)


def test_an_earlier_position_rolls_back() -> None:
    kept = session(accepted=3, length=9)
    assert kept.accept(step(4, 4, 2, 1), WIDTH)
    assert kept.length == 3
    with pytest.raises(StepError, match="positions 9 to 10 in a session that has 3"):
        kept.accept(step(5, 5, 9), WIDTH)


def test_the_last_reserved_position_can_be_used_and_the_next_cannot() -> None:
    kept = session()
    assert kept.accept(step(1, 1, 0, ROOM), WIDTH)
    with pytest.raises(StepError, match=f"reserved {ROOM}"):
        kept.accept(step(2, 2, ROOM), WIDTH)


@pytest.mark.parametrize("reorder", [(0,), (0, 1, 1), (0, 2), (5, 0)])
def test_a_reorder_that_is_not_of_this_sessions_rows_is_refused(reorder: tuple[int, ...]) -> None:
    with pytest.raises(StepError, match="reorder"):
        session(accepted=1, length=1).accept(step(2, 2, 1, reorder=reorder), WIDTH)


def test_the_predecessor_is_the_owner_until_a_neighbour_is_named() -> None:
    kept = session()
    assert kept.predecessor == OWNER
    kept.neighbours = replace(kept.neighbours, prev=PeerID(OTHER))
    assert kept.predecessor == OTHER


def test_rows_without_padding_count_from_the_position_and_need_no_mask() -> None:
    position_ids, mask = session().positions(3, 2, CPU)
    assert position_ids.tolist() == [[3, 4], [3, 4]]
    assert mask is None


def test_padded_rows_count_from_their_first_token_and_mask_what_is_before() -> None:
    padded = session(pads=(0, 2, 4))
    position_ids, mask = padded.positions(0, 4, CPU)
    assert position_ids.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert mask is not None
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    position_ids, mask = padded.positions(4, 1, CPU)
    assert position_ids.tolist() == [[4], [2], [0]]
    assert mask is not None
    assert mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
