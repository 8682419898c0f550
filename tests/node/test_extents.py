"""Stretches never overlap, are had all together or not at all, and what is given back is one piece again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.extents import Extents

TOTAL = 40
# What a node does with its arena: reserve these sizes, or give back one of the stretches that are out.
actions = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4) | st.integers(0, 30), max_size=40)


def room_for(size: int, out: list[tuple[int, int]]) -> bool:
    """Is there a gap of this size between the stretches that are out?"""
    ends = [0, *(offset + length for offset, length in sorted(out))]
    starts = [*(offset for offset, _ in sorted(out)), TOTAL]
    return any(stop - start >= size for start, stop in zip(ends, starts, strict=True))


@given(actions)
def test_stretches_never_overlap_and_the_sum_of_free_positions_is_right(actions: list[list[int] | int]) -> None:
    extents, out = Extents(TOTAL), list[tuple[int, int]]()
    for action in actions:
        if isinstance(action, list):
            free = extents.free
            offsets = extents.reserve(action)
            if offsets is None:
                assert extents.free == free, "a refusal takes nothing"
                assert len(action) > 1 or not room_for(action[0], out), "a single stretch is refused for want of a gap"
                continue
            out += zip(offsets, action, strict=True)
        elif out:
            extents.release(*out.pop(action % len(out)))
        taken = [position for offset, size in out for position in range(offset, offset + size)]
        assert len(taken) == len(set(taken))
        assert all(0 <= position < TOTAL for position in taken)
        assert extents.free == TOTAL - len(taken)


@given(actions)
def test_what_was_given_back_is_one_piece_again(actions: list[list[int] | int]) -> None:
    extents, out = Extents(TOTAL), list[tuple[int, int]]()
    for action in actions:
        if isinstance(action, list):
            out += zip(extents.reserve(action) or [], action, strict=False)
        elif out:
            extents.release(*out.pop(action % len(out)))
    for stretch in out:
        extents.release(*stretch)
    assert extents.reserve([TOTAL]) == [0]


def test_a_released_stretch_is_joined_with_its_neighbours_on_both_sides() -> None:
    extents = Extents(30)
    assert extents.reserve([10, 10, 10]) == [0, 10, 20]
    extents.release(0, 10)
    extents.release(20, 10)
    assert extents.reserve([11]) is None, "20 positions are free, in two pieces"
    extents.release(10, 10)
    assert extents.reserve([30]) == [0]


def test_all_stretches_are_had_or_none() -> None:
    extents = Extents(10)
    assert extents.reserve([4, 4, 4]) is None
    assert extents.free == 10
    assert extents.reserve([4, 6]) == [0, 4]


def test_the_first_gap_that_fits_is_taken() -> None:
    extents = Extents(20)
    extents.reserve([3, 2, 5, 10])
    extents.release(0, 3)
    extents.release(5, 5)
    assert extents.reserve([4]) == [5]
    assert extents.reserve([3]) == [0]


def test_nothing_is_to_be_had_of_nothing() -> None:
    extents = Extents(0)
    assert extents.reserve([1]) is None
    assert extents.reserve([]) == []


@pytest.mark.parametrize("again", [(4, 4), (2, 4), (6, 4), (0, 10), (8, 2)])
def test_giving_back_twice_is_a_mistake_of_ours_that_is_seen(again: tuple[int, int]) -> None:
    extents = Extents(10)
    extents.reserve([4, 4])
    extents.release(4, 4)
    with pytest.raises(AssertionError, match="twice"):
        extents.release(*again)
