"""The KV budget never promises more than it has, and gets back what it promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.kv import KVBudget


@given(st.integers(0, 1000), st.lists(st.tuples(st.booleans(), st.integers(0, 400))))
def test_what_is_free_and_what_is_reserved_are_always_the_total(total: int, moves: list[tuple[bool, int]]) -> None:
    budget, reserved = KVBudget(total), []
    for take, positions in moves:
        if take:
            before = budget.free
            assert budget.reserve(positions) == (positions <= before)
            if positions <= before:
                reserved.append(positions)
        elif reserved:
            budget.release(reserved.pop())
        assert budget.free == total - sum(reserved) >= 0


def test_a_refused_reservation_takes_nothing() -> None:
    budget = KVBudget(10)
    assert not budget.reserve(11)
    assert budget.free == 10
    assert budget.reserve(10)
    assert not budget.reserve(1)


def test_giving_back_more_than_was_taken_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        KVBudget(10).release(1)
