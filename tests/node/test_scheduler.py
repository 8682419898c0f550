"""An iteration: single tokens before prompts, within the budget, and nobody starves; here nobody pays."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.fairqueue import FairQueue
from nectar_node.scheduler import MAX_ROWS, PROMPT_SHARE, SHORT_TOKENS, Grant, Work
from nectar_swarm.history import InMemory


@dataclass(frozen=True)
class Blocks:
    """In a KV's place: the scheduler does not look at it."""

    start: int = 0
    stop: int = 4


def work(batch: int, tokens: int, weight: int = 0) -> Work:
    return Work(object(), Blocks(), 0, batch, tokens, InMemory(torch.zeros(0)), weight=weight)


def take(scheduler: FairQueue, prompt_rows: int | None) -> list[Grant]:
    """An iteration, computed at once."""
    grants = scheduler.take(prompt_rows)
    for grant in grants:
        grant.work.done += grant.tokens
    return grants


def rows(grants: list[Grant]) -> int:
    return sum(grant.work.batch * grant.tokens for grant in grants)


batches = st.integers(1, 4) | st.integers(1, 512)
shapes = st.tuples(batches, st.integers(1, SHORT_TOKENS) | st.integers(1, 600))
budgets = st.none() | st.integers(1, MAX_ROWS)


@given(st.lists(shapes, max_size=12), budgets)
def test_an_iteration_keeps_the_budget_and_the_order_of_arrival(
    shapes: list[tuple[int, int]], prompt_rows: int | None
) -> None:
    scheduler, works = FairQueue(), [work(*shape) for shape in shapes]
    for one in works:
        scheduler.add(one)
    grants = scheduler.take(prompt_rows)
    short, long = ([one for one in works if one.short == kind] for kind in (True, False))
    taken = [grant.work for grant in grants]
    count = sum(one.short for one in taken)
    assert taken == short[:count] + long[: len(taken) - count], "single tokens first, each kind as it came"
    assert bool(grants) == bool(works)
    for grant in grants:
        assert 1 <= grant.tokens <= grant.work.left
        assert grant.tokens == grant.work.left or not grant.work.short
    tokens, prompts = grants[:count], grants[count:]
    limit = MAX_ROWS - (MAX_ROWS // PROMPT_SHARE if long else 0)
    assert rows(tokens) <= limit or len(tokens) == 1
    if prompt_rows is not None:
        room = max(0, min(prompt_rows, MAX_ROWS - rows(tokens)))  # a single step may have more than MAX_ROWS
        assert rows(prompts) <= room or [grant.tokens for grant in prompts] == [1]


@given(
    st.lists(st.tuples(batches, st.integers(SHORT_TOKENS + 1, 40)), min_size=1, max_size=4),
    st.lists(st.tuples(batches, st.integers(1, SHORT_TOKENS)), max_size=8),
    st.integers(1, MAX_ROWS),
)
def test_nobody_starves_beside_those_who_always_come_back(
    prompts: list[tuple[int, int]], decoding: list[tuple[int, int]], prompt_rows: int
) -> None:
    scheduler, waiting = FairQueue(), [work(*shape) for shape in prompts]
    rounds = {}
    for one in (*waiting, *(work(*shape) for shape in decoding)):
        scheduler.add(one)
        rounds[one] = 0
    for _ in range(sum(one.tokens for one in waiting)):  # every iteration brings the first prompt a token, at least
        grants = take(scheduler, prompt_rows)
        for one in rounds:
            rounds[one] += 1
        for grant in grants:
            if grant.work.short:  # the same session's next step
                assert rounds.pop(grant.work) <= len(decoding), "at least one of them is served in each iteration"
                again = work(grant.work.batch, grant.work.tokens)
                scheduler.add(again)
                rounds[again] = 0
    assert all(one.left == 0 for one in waiting)


weighted = st.tuples(batches, st.integers(1, SHORT_TOKENS) | st.integers(1, 600), st.sampled_from([0, 1, 2, 4, 8]))


@given(st.lists(weighted, max_size=12), budgets, st.integers(0, MAX_ROWS), st.sampled_from([1, 64, MAX_ROWS]))
def test_everything_is_computed_once_whoever_pays_and_the_rows_that_wait_are_counted(
    shapes: list[tuple[int, int, int]], prompt_rows: int | None, spare_rows: int, max_rows: int
) -> None:
    scheduler, works = FairQueue(max_rows=max_rows), [work(*shape) for shape in shapes]
    for one in works:
        scheduler.add(one)
    while scheduler.rows:
        assert scheduler.rows == sum(one.rows for one in works)
        for paid in (True, False):
            short = [one.rows for one in works if one.short and (one.weight or not paid)]
            assert scheduler.short_rows(paid=paid) == sum(short)
        grants = scheduler.take(prompt_rows, spare_rows)
        assert grants
        assert len({grant.work for grant in grants}) == len(grants)
        for grant in grants:
            assert 1 <= grant.tokens <= grant.work.left
            grant.work.done += grant.tokens
    assert [one.done for one in works] == [one.tokens for one in works]
    assert take(scheduler, prompt_rows) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(9, 5000)), min_size=1, max_size=3))
def test_a_prompt_runs_whole_when_nobody_else_is_about(shapes: list[tuple[int, int]]) -> None:
    scheduler = FairQueue()
    for shape in shapes:
        scheduler.add(work(*shape))
    assert all(grant.tokens == grant.work.tokens for grant in scheduler.take(None))
    assert scheduler.rows == 0


@pytest.mark.parametrize("prompt_rows", [16, MAX_ROWS])
def test_a_batch_of_more_rows_than_the_budget_gets_on_beside_decoding(prompt_rows: int) -> None:
    scheduler, prompt = FairQueue(), work(512, 100)
    scheduler.add(prompt)
    for _ in range(3):
        scheduler.add(work(1, 1))
        token, part = take(scheduler, prompt_rows)
        assert (token.tokens, part.tokens) == (1, 1)
    assert prompt.done == 3


def test_more_tokens_than_fit_leave_a_prompt_its_share_and_never_a_negative_one() -> None:
    scheduler, prompt = FairQueue(), work(1, 600)
    scheduler.add(work(512, SHORT_TOKENS))
    scheduler.add(prompt)
    big, part = take(scheduler, MAX_ROWS)
    assert (big.tokens, part.tokens) == (SHORT_TOKENS, 1)
    for _ in range(600):
        scheduler.add(work(1, 1))
    *_, part = take(scheduler, MAX_ROWS)
    assert part.tokens == MAX_ROWS // PROMPT_SHARE


def test_what_is_discarded_does_not_run() -> None:
    scheduler, token, prompt, other = FairQueue(), work(1, 1), work(1, 100), work(2, 1)
    for one in (token, prompt, other):
        scheduler.add(one)
    take(scheduler, 10)
    scheduler.discard(prompt)
    scheduler.discard(token)  # it is gone already
    assert scheduler.rows == 0
    scheduler.add(other)
    scheduler.discard(other)
    assert scheduler.take(10) == []


def test_a_works_states_are_loaded_when_its_turn_comes_and_once() -> None:
    class Counted(InMemory):
        loads = 0

        def load(self) -> torch.Tensor:
            Counted.loads += 1
            return super().load()

    one = Work(object(), Blocks(), 0, 1, 2, Counted(torch.ones(1, 2, 3)))
    assert (one.left, one.short, Counted.loads) == (2, True, 0)
    assert one.hidden is one.hidden
    assert Counted.loads == 1
