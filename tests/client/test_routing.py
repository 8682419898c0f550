"""The found chain is the cheapest of all, checked against every chain there is."""

import random
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar.errors import NoRouteError
from nectar.routing import HOP_S, Candidate, Leg, find_route, missing_spans
from nectar_protocol.identity import PeerID

BLOCKS = 5


def swarm(seed: int, even: bool) -> list[Candidate]:
    """Up to five nodes with random spans and costs; with `even`, many costs are equal."""
    dice = random.Random(seed)
    nodes = []
    for number in range(dice.randint(1, 5)):
        start = dice.randrange(BLOCKS)
        stop = dice.randint(start + 1, BLOCKS)
        decode_s = (stop - start) * (0.01 if even else dice.uniform(0.001, 0.1))
        rtt_s = dice.choice([0.0, 0.01, 0.05]) if even else dice.uniform(0.0, 0.1)
        nodes.append(Candidate(PeerID(f"peer {number}"), (), start, stop, decode_s, rtt_s))
    return nodes


swarms = st.builds(swarm, st.integers(0, 1 << 32), st.booleans())


def every_chain(nodes: Sequence[Candidate], start: int, stop: int) -> list[list[Leg]]:
    """All ways to give each block to a node that serves it; a node may be left and entered again."""
    serving = [[node for node in nodes if node.start <= block < node.stop] for block in range(start, stop)]
    chains = []
    for choice in product(*serving):
        legs = []
        for _, blocks in groupby(enumerate(choice, start), key=lambda item: item[1].peer):
            run = list(blocks)
            legs.append(Leg(run[0][1], run[0][0], run[-1][0] + 1))
        chains.append(legs)
    return chains


def cost_s(legs: Sequence[Leg]) -> float:
    return sum(leg.candidate.rtt_s / 2 + HOP_S + leg.candidate.block_s * (leg.stop - leg.start) for leg in legs)


def repeats(legs: Sequence[Leg]) -> bool:
    return len({leg.candidate.peer for leg in legs}) < len(legs)


@given(swarms, st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS))
def test_a_route_runs_every_block_once_on_nodes_that_serve_it_and_no_node_twice(
    nodes: list[Candidate], start: int, stop: int
) -> None:
    if start >= stop:
        start, stop = stop - 1, start + 1
    if missing_spans(nodes, start, stop):
        with pytest.raises(NoRouteError):
            find_route(nodes, start, stop)
        return
    legs = find_route(nodes, start, stop)
    assert [block for leg in legs for block in range(leg.start, leg.stop)] == list(range(start, stop))
    assert all(leg.candidate.start <= leg.start < leg.stop <= leg.candidate.stop for leg in legs)
    assert not repeats(legs)


@given(swarms)
def test_a_route_is_the_cheapest_chain(nodes: list[Candidate]) -> None:
    if missing_spans(nodes, 0, BLOCKS):
        return
    chains = every_chain(nodes, 0, BLOCKS)
    best_s = min(cost_s(legs) for legs in chains if not repeats(legs))
    cheapest_s = min(map(cost_s, chains))
    found_s = cost_s(find_route(nodes, 0, BLOCKS))
    if cheapest_s < best_s - 1e-12:
        # The walk wanted to enter a node twice, which is not done: that node runs what lies between, too.
        assert found_s >= best_s - 1e-12
    else:
        assert found_s == pytest.approx(best_s)


def test_a_node_that_would_be_entered_twice_runs_what_lies_between(candidate: Callable[..., Candidate]) -> None:
    slow, fast = candidate(1, 0, 6, decode_s=6.0, rtt_s=0.0), candidate(2, 2, 4, decode_s=0.2, rtt_s=0.0)
    assert find_route([slow, fast], 0, 6) == [Leg(slow, 0, 6)]


def test_a_far_node_is_left_out_where_a_near_one_is_fast_enough(candidate: Callable[..., Candidate]) -> None:
    near, far = candidate(1, 0, 6, decode_s=0.06, rtt_s=0.002), candidate(2, 0, 6, decode_s=0.01, rtt_s=0.2)
    assert find_route([far, near], 0, 6) == [Leg(near, 0, 6)]


def test_one_hop_is_better_than_two_of_the_same_speed(candidate: Callable[..., Candidate]) -> None:
    halves = [candidate(1, 0, 3, decode_s=0.03), candidate(2, 3, 6, decode_s=0.03)]
    whole = candidate(3, 0, 6, decode_s=0.06)
    assert find_route([*halves, whole], 0, 6) == [Leg(whole, 0, 6)]
    assert find_route(halves, 0, 6) == [Leg(halves[0], 0, 3), Leg(halves[1], 3, 6)]


@given(swarms, st.integers(0, BLOCKS), st.integers(0, BLOCKS))
def test_missing_spans_are_exactly_the_blocks_nobody_serves(nodes: list[Candidate], start: int, stop: int) -> None:
    spans = missing_spans(nodes, start, stop)
    unserved = [block for block in range(start, stop) if not any(node.start <= block < node.stop for node in nodes)]
    assert [block for span in spans for block in range(*span)] == unserved
    assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_an_error_names_all_that_nobody_serves(candidate: Callable[..., Candidate]) -> None:
    with pytest.raises(NoRouteError, match="nobody serves blocks 0:1, 3:4 of this model") as lost:
        find_route([candidate(1, 1, 3), candidate(2, 4, 6)], 0, 6)
    assert lost.value.missing == ((0, 1), (3, 4))
