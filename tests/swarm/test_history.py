"""What a history sends again leads any successor to the state that the original steps led to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_swarm import history
from nectar_swarm.history import MERGE_TOKENS, History, InMemory
from nectar_swarm.messages import Step

BATCH = 3


@dataclass
class Node:
    """A node's session: what stands at each position of each row, in place of its KV."""

    rows: list[list[float]] = field(default_factory=lambda: [[] for _ in range(BATCH)])
    accepted: int = 0

    def take(self, step: Step) -> None:
        """Accept and compute a step as a node does: cut, reorder, append."""
        assert step.last > self.accepted, "old news"
        assert step.first <= self.accepted + 1, "a gap"
        assert step.position <= len(self.rows[0]), "positions are missing"
        rows = [row[: step.position] for row in self.rows]
        if step.reorder:
            assert len(step.reorder) == BATCH
            rows = [list(rows[row]) for row in step.reorder]
        self.rows = [row + more for row, more in zip(rows, step.hidden[..., 0].tolist(), strict=True)]
        self.accepted = step.last

    def copy(self) -> "Node":
        return Node([list(row) for row in self.rows], self.accepted)


# What a client may do: how far to roll back, how many tokens, and which row each row continues.
orders = st.just(()) | st.tuples(*[st.integers(0, BATCH - 1)] * BATCH)
actions = st.lists(st.tuples(st.integers(0, 9) | st.just(0), st.integers(1, 4), orders), min_size=1, max_size=14)


def steps_of(actions: list[tuple[int, int, tuple[int, ...]]]) -> list[Step]:
    """Every number in every hidden state is another, so that no two pasts look alike."""
    steps, length, number = [], 0, 0
    for last, (back, tokens, reorder) in enumerate(actions, 1):
        position = max(0, length - back)
        hidden = torch.arange(number, number + BATCH * tokens, dtype=torch.float32).view(BATCH, tokens, 1)
        steps.append(Step(last, last, position, hidden, reorder))
        length, number = position + tokens, number + BATCH * tokens
    return steps


def kept(steps: list[Step]) -> History:
    result = History()
    for step in steps:
        result.append(step)
    return result


def states(steps: list[Step]) -> list[Node]:
    """A node's state before any step, and after each."""

    def next_state(node: Node, step: Step) -> Node:
        after = node.copy()
        after.take(step)
        return after

    return list(accumulate(steps, next_state, initial=Node()))


@contextmanager
def merges_of(tokens: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "MERGE_TOKENS", tokens)
        yield


@given(actions, st.integers(0, 14), st.integers(0, 14))
def test_a_successor_that_has_nothing_or_what_was_settled_gets_to_the_same_state(
    actions: list[tuple[int, int, tuple[int, ...]]], sent: int, settled: int
) -> None:
    steps = steps_of(actions)
    sent, settled = min(sent, len(steps)), min(settled, len(steps))
    reached = states(steps)
    for has in {0, max(sent, settled)}:
        node = reached[has].copy()
        for step in kept(steps).after(has, settled):
            node.take(step)
        assert node.rows == reached[-1].rows
        assert node.accepted == len(steps)


@given(actions, st.integers(0, 14), st.integers(1, 9))
def test_a_replay_that_was_interrupted_goes_on(
    actions: list[tuple[int, int, tuple[int, ...]]], settled: int, limit: int
) -> None:
    steps = steps_of(actions)
    node, settled = Node(), min(settled, len(steps))
    with merges_of(limit):
        while node.accepted < len(steps):
            for step, _ in zip(kept(steps).after(node.accepted, settled), range(2), strict=False):
                node.take(step)
    assert node.rows == states(steps)[-1].rows


@given(actions, st.integers(0, 14), st.integers(0, 14), st.integers(0, 14), st.booleans())
def test_a_replay_by_another_may_begin_anywhere_in_the_one_before(
    actions: list[tuple[int, int, tuple[int, ...]]], known: int, settled: int, taken: int, replaced: bool
) -> None:
    """Two predecessors, the second with more steps, and perhaps itself a replacement; what is settled is the same."""
    steps = steps_of(actions)
    known = 1 + known % len(steps)
    settled = min(settled, known)
    node = Node()
    with merges_of(3):
        for step, _ in zip(kept(steps[:known]).after(0, settled), range(taken), strict=False):
            node.take(step)
    second = kept(list(kept(steps).after(0, settled))) if replaced else kept(steps)
    for step in second.after(0, settled):
        if step.last > node.accepted:
            node.take(step)
    assert node.rows == states(steps)[-1].rows


@given(actions, st.integers(0, 14))
def test_a_successor_fed_after_every_step_sees_the_steps_themselves(
    actions: list[tuple[int, int, tuple[int, ...]]], settled: int
) -> None:
    steps, keeping, sent = steps_of(actions), History(), 0
    for step in steps:
        keeping.append(step)
        [live] = keeping.after(sent, min(settled, sent))
        assert live == (step if step.position else replace(step, reorder=()))
        assert torch.equal(live.hidden, step.hidden)
        sent = live.last
    assert not list(keeping.after(sent, settled))


@given(actions, st.booleans())
def test_a_replacement_replays_into_the_next_one_as_well(
    actions: list[tuple[int, int, tuple[int, ...]]], answered: bool
) -> None:
    steps = steps_of(actions)
    settled = len(steps) - (not answered)  # the client waits for each answer, so all but the newest step is settled
    replacement = kept(list(kept(steps).after(0, settled)))
    reached = states(steps)
    for sent in {0, settled, len(steps)}:  # a new successor, or one that survived and has all that was answered
        node = reached[sent].copy()
        for step in replacement.after(sent, settled):
            node.take(step)
        assert node.rows == reached[-1].rows


@given(actions, st.integers(0, 14), st.integers(0, 14))
def test_numbers_leave_no_gap_and_positions_no_hole(
    actions: list[tuple[int, int, tuple[int, ...]]], sent: int, settled: int
) -> None:
    steps = steps_of(actions)
    sent = min(max(sent, settled) if sent else 0, len(steps) - 1)
    again = list(kept(steps).after(sent, settled))
    assert (again[0].first, again[-1].last) == (sent + 1, len(steps))
    for one, other in pairwise(again):
        assert other.first == one.last + 1
        assert other.position <= one.position + one.hidden.shape[1]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_a_merge_never_exceeds_the_limit(tokens: list[int]) -> None:
    keeping = History()
    for number, count in enumerate(tokens, 1):
        keeping.append(Step(number, number, keeping.position, torch.zeros(1, count, 1)))
    merged = list(keeping.after(0, len(tokens)))
    sizes = [step.hidden.shape[1] for step in merged]
    assert sum(sizes) == sum(tokens)
    assert all(size <= MERGE_TOKENS or step.last == step.first for size, step in zip(sizes, merged, strict=True))


def test_what_was_settled_comes_merged_and_the_rest_as_it_was() -> None:
    steps = steps_of([(0, 2, ())] * 5)
    again = list(kept(steps).after(0, 3))
    assert [(step.first, step.last) for step in again] == [(1, 3), (4, 4), (5, 5)]


def test_a_reorder_goes_by_its_own_number_though_its_step_was_taken_back() -> None:
    order = (2, 0, 1)
    steps = steps_of([(0, 3, ()), (0, 2, order), (2, 4, ())])
    _, second, third = kept(steps).after(0, 1)
    assert (second.first, second.last, second.position, second.reorder) == (2, 2, 3, order)
    assert second.hidden.shape[1] == 1
    assert (third.first, third.last, third.position, third.reorder) == (3, 3, 3, ())
    [once_more] = kept(steps).after(2, 1)
    assert once_more == third
    assert [step.reorder for step in kept(steps).after(0, 3)] == [()]


def test_merging_waits_for_nothing_when_nothing_is_settled() -> None:
    steps = steps_of([(0, 2, ())] * 3)
    assert [(step.first, step.last) for step in kept(steps).after(1, 0)] == [(2, 2), (3, 3)]


@pytest.mark.parametrize("limit", [1, 12, 15])  # of three rows
def test_the_limit_of_a_merge_counts_the_tokens_of_all_rows(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(history, "MERGE_TOKENS", limit)
    steps = steps_of([(0, 2, ())] * 5)
    again = list(kept(steps).after(0, 5))
    assert [step.hidden.shape[1] for step in again] == ([2] * 5 if limit == 1 else [4, 4, 2])


def test_an_empty_history_has_nothing_to_send() -> None:
    keeping = History()
    assert (keeping.position, keeping.last, list(keeping.after(0, 0))) == (0, 0, [])


def test_a_step_is_handed_out_without_changing_what_is_kept() -> None:
    keeping = kept(steps_of([(0, 2, ()), (0, 1, (1, 0, 2))]))
    before = [(entry, entry.load().clone()) for entry in keeping.entries]
    list(keeping.after(0, 2))
    assert keeping.entries == [entry for entry, _ in before]
    assert all(torch.equal(entry.load(), hidden) for entry, hidden in before)


@given(actions)
def test_all_that_counts_leads_a_node_that_has_nothing_to_the_same_rows(
    actions: list[tuple[int, int, tuple[int, ...]]],
) -> None:
    steps, node = steps_of(actions), Node()
    for part in kept(steps).whole():
        hidden = part.load()
        assert hidden.shape[1] == part.tokens
        node.take(Step(node.accepted + 1, part.last, part.position, hidden))
    assert node.rows == states(steps)[-1].rows


class Elsewhere(InMemory):
    """Kept where reading is to be seen."""

    read: ClassVar[list[int]] = []

    def load(self) -> torch.Tensor:
        self.read.append(int(self.tensor[0, 0, 0]))
        return super().load()


def test_states_lie_where_they_are_said_to_and_are_read_when_their_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MERGE_TOKENS", 12)
    monkeypatch.setattr(Elsewhere, "read", [])
    steps, keeping = steps_of([(0, 2, ())] * 5), History(Elsewhere)
    numbers = [int(step.hidden[0, 0, 0]) for step in steps]
    for step in steps:
        stored = keeping.append(step)
        assert torch.equal(stored.tensor, step.hidden)
    parts, whole = keeping.after(0, 4), keeping.whole()
    assert Elsewhere.read == []
    next(parts)
    assert Elsewhere.read == numbers[:2], "two steps of two tokens are merged"
    assert [part.tokens for part in whole] == [4, 4, 2]
    assert Elsewhere.read == numbers[:2]
    list(parts)
    assert Elsewhere.read == numbers


def test_a_merge_is_no_larger_than_a_message_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_of([(0, 2, ())] * 5)
    monkeypatch.setattr(history, "MERGE_BYTES", 2 * steps[0].hidden.nbytes)
    assert [step.hidden.shape[1] for step in kept(steps).after(0, 5)] == [4, 4, 2]
