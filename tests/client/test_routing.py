"""The found chain is the cheapest of all, or one that costs little more: checked against every chain there is."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise, product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nectar.errors import NoRouteError, UntrustedError
from nectar.routing import (
    HOP_S,
    MAX_FASTEST,
    SLACK,
    Candidate,
    Leg,
    PeerSet,
    find_route,
    missing_spans,
    shortlist,
    some_of,
)
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import PeerID, PublicKey
from nectar_protocol.manifest import ModelID

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
        wait_s = dice.choice([0.0, 0.02])
        nodes.append(Candidate(PeerID(f"peer {number}"), (), start, stop, decode_s, rtt_s, wait_s))
    return nodes


seeds = st.integers(0, 1 << 32)
swarms = st.builds(swarm, seeds, st.booleans())
peer_sets = st.frozensets(st.sampled_from([PeerID(f"peer {number}") for number in range(5)]))


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
    return sum(
        leg.candidate.rtt_s / 2 + HOP_S + leg.candidate.wait_s + leg.candidate.block_s * (leg.stop - leg.start)
        for leg in legs
    )


def repeats(legs: Sequence[Leg]) -> bool:
    return len({leg.candidate.peer for leg in legs}) < len(legs)


@given(swarms, st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS), st.none() | seeds)
def test_a_route_runs_every_block_once_on_nodes_that_serve_it_and_no_node_twice(
    nodes: list[Candidate], start: int, stop: int, seed: int | None
) -> None:
    chance = None if seed is None else random.Random(seed)
    if start >= stop:
        start, stop = stop - 1, start + 1
    if missing_spans(nodes, start, stop):
        with pytest.raises(NoRouteError):
            find_route(nodes, start, stop, chance=chance)
        return
    legs = find_route(nodes, start, stop, chance=chance)
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


@given(swarms, seeds)
def test_a_drawn_route_costs_at_most_a_tenth_more_than_the_cheapest(nodes: list[Candidate], seed: int) -> None:
    assume(not missing_spans(nodes, 0, BLOCKS))
    best_s, cheapest_s = (
        min(cost_s(legs) for legs in every_chain(nodes, 0, BLOCKS) if again or not repeats(legs))
        for again in (False, True)
    )
    limit_s = (1 + SLACK) * best_s
    if cheapest_s < best_s - 1e-12:  # a node would be entered twice, and what lies between is added to what it runs
        limit_s = max(limit_s, cost_s(find_route(nodes, 0, BLOCKS)))
    assert cost_s(find_route(nodes, 0, BLOCKS, chance=random.Random(seed))) <= limit_s + 1e-12


def test_clients_spread_over_equal_routes_and_leave_dear_ones_alone(candidate: Callable[..., Candidate]) -> None:
    equal = [candidate(number, 3 * part, 3 * part + 3, decode_s=0.3) for part in (0, 1) for number in (part, part + 10)]
    dearer = candidate(20, 0, 3, decode_s=0.315)
    dear = candidate(21, 0, 3, decode_s=0.4)
    dice = random.Random(0)
    drawn = [find_route([*equal, dearer, dear], 0, 6, chance=dice) for _ in range(3000)]
    firsts, seconds = (Counter(legs[at].candidate.peer for legs in drawn) for at in (0, 1))
    assert firsts.keys() == {equal[0].peer, equal[1].peer, dearer.peer}
    assert seconds.keys() == {equal[2].peer, equal[3].peer}
    assert min(firsts.values()) > 900  # of three, each is taken by about a third: 5 % more cost are 2.5 % of the route
    assert min(seconds.values()) > 1400


def test_what_waits_on_a_node_counts(candidate: Callable[..., Candidate]) -> None:
    crowded, idle = candidate(1, 0, 6, decode_s=0.01), candidate(2, 0, 6, decode_s=0.05)
    assert find_route([crowded, idle], 0, 6) == [Leg(crowded, 0, 6)]
    waiting = Candidate(**vars(crowded) | {"wait_s": 0.1})
    assert find_route([waiting, idle], 0, 6) == [Leg(idle, 0, 6)]


def test_a_whole_model_on_a_hundred_nodes_is_routed_by_few_of_its_chains() -> None:
    dice = random.Random(3)
    nodes = []
    for number in range(100):
        start = dice.randrange(0, 73)
        costs = 8 * dice.uniform(0.001, 0.004), dice.uniform(0.005, 0.1)
        nodes.append(Candidate(PeerID(f"peer {number}"), (), start, start + 8, *costs))
    best_s = cost_s(find_route(nodes, 0, 80))
    drawn = [find_route(nodes, 0, 80, chance=dice) for _ in range(50)]
    assert all(cost_s(legs) <= (1 + SLACK) * best_s + 1e-12 for legs in drawn)
    assert len({tuple(leg.candidate.peer for leg in legs) for legs in drawn}) > 25


# Trust


@given(swarms, peer_sets, st.tuples(st.booleans(), st.booleans()), st.none() | seeds)
def test_the_ends_of_a_route_are_on_trusted_peers_or_there_is_none(
    nodes: list[Candidate], trusted: PeerSet, ends: tuple[bool, bool], seed: int | None
) -> None:
    assume(not missing_spans(nodes, 0, BLOCKS))
    guarded = [block for block, matters in zip((0, BLOCKS - 1), ends, strict=True) if matters]
    mine = [node for node in nodes if node.peer in trusted]
    unserved = [(block, block + 1) for block in guarded if missing_spans(mine, block, block + 1)]
    chance = None if seed is None else random.Random(seed)
    if unserved:
        with pytest.raises(UntrustedError, match="no trusted peer serves blocks") as refused:
            find_route(nodes, 0, BLOCKS, trusted=trusted, ends=ends, chance=chance)
        assert refused.value.missing == tuple(unserved)
        return
    legs = find_route(nodes, 0, BLOCKS, trusted=trusted, ends=ends, chance=chance)
    assert all(leg.candidate.peer in trusted for leg, matters in zip((legs[0], legs[-1]), ends, strict=True) if matters)
    assert [block for leg in legs for block in range(leg.start, leg.stop)] == list(range(BLOCKS))
    assert not repeats(legs)


@given(swarms, st.none() | seeds)
def test_trust_in_everybody_changes_nothing(nodes: list[Candidate], seed: int | None) -> None:
    assume(not missing_spans(nodes, 0, BLOCKS))
    everybody = frozenset(node.peer for node in nodes)
    free, bound = (
        find_route(nodes, 0, BLOCKS, trusted=trusted, chance=None if seed is None else random.Random(seed))
        for trusted in (None, everybody)
    )
    assert free == bound


def test_between_trusted_ends_anybody_may_run(candidate: Callable[..., Candidate]) -> None:
    slow = [candidate(1, 0, 2, decode_s=1.0), candidate(2, 4, 6, decode_s=1.0)]
    fast = candidate(3, 0, 6, decode_s=0.06)
    trusted = frozenset(node.peer for node in slow)
    assert find_route([fast, *slow], 0, 6, trusted=trusted) == [Leg(slow[0], 0, 2), Leg(fast, 2, 4), Leg(slow[1], 4, 6)]
    with pytest.raises(UntrustedError, match="no trusted peer serves blocks 5:6 of this model"):
        find_route([fast, slow[0]], 0, 6, trusted=trusted)


# What a chain is made of


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


# Whom to meet


def announced(start: int, stop: int, decode_us: int) -> Announcement:
    nobody = PublicKey(bytes(32))
    return Announcement(
        nobody, ModelID(bytes(32)), 0, 1, start, stop, Profile.F32, NodeState.SERVING, decode_us, 1, ()
    )  # fmt: skip


many = {
    PeerID(f"{start} {number}"): announced(start, start + 2, 1000 * (number + 1))
    for start in range(6)
    for number in range(5)
}


@given(st.frozensets(st.sampled_from(sorted(many))), st.integers(0, 12), seeds)
def test_a_shortlist_has_somebody_for_every_block_that_is_served(peers: PeerSet, most: int, seed: int) -> None:
    nodes = {peer: many[peer] for peer in peers}
    chosen = shortlist(nodes, most, random.Random(seed))
    assert missing_spans([nodes[peer] for peer in chosen], 0, 7) == missing_spans(list(nodes.values()), 0, 7)
    assert len(chosen) == len(set(chosen))
    assert set(chosen) <= peers
    assert min(most, len(nodes)) <= len(chosen) <= max(most, 6)  # more than asked for if every block has its own


def test_a_shortlist_has_the_fastest_and_not_always_the_same_of_equals() -> None:
    equal = {PeerID(str(number)): announced(0, 4, 1000) for number in range(20)}
    slow = {PeerID("slow"): announced(0, 4, 1_000_000)}
    lists = [shortlist(slow | equal, 5, random.Random(seed)) for seed in range(40)]
    assert {peer for chosen in lists for peer in chosen} == set(equal)


def test_a_shortlist_has_a_bound_however_many_claim_to_be_the_fastest_for_a_block() -> None:
    claims = {PeerID(str(number)): announced(9 * number, 9 * number + 9, 1) for number in range(1000)}
    assert len(shortlist(claims, 8, random.Random(0))) == MAX_FASTEST


def test_of_strangers_half_are_met_by_their_word_and_half_by_chance() -> None:
    fast = {PeerID(f"fast {number}"): announced(0, 4, 1) for number in range(30)}
    slow = {PeerID(f"slow {number}"): announced(0, 4, 1_000_000) for number in range(3)}
    lists = [some_of(fast | slow, 8, random.Random(seed)) for seed in range(50)]
    assert all(len(set(chosen)) == 8 for chosen in lists)
    assert slow.keys() <= {peer for chosen in lists for peer in chosen}
    assert set(some_of(slow, 8, random.Random(0))) == set(slow)
