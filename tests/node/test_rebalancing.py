"""Plans for all nodes: they pay, can be carried out without a gap, and end."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_node.layout import Layout
from nectar_node.rebalancing import GAIN, find_moves, is_worth, may_begin, order, relieved
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import PublicKey
from nectar_protocol.manifest import ModelID

BLOCKS = 8
STATES = [NodeState.SERVING] * 6 + [NodeState.PINNED, NodeState.JOINING, NodeState.MOVING]


def said(
    number: int, start: int, stop: int, decode_us: int = 10_000, state: NodeState = NodeState.SERVING
) -> Announcement:
    node = PublicKey(bytes([number]) * 32)
    return Announcement(node, ModelID(bytes(32)), 0, 1, start, stop, Profile.F32, state, decode_us, 1, ())


@st.composite
def swarms(draw: st.DrawFn, states: list[NodeState] = STATES) -> Layout:
    some = []
    for number in range(draw(st.integers(1, 7))):
        start = draw(st.integers(0, BLOCKS - 1))
        stop = draw(st.integers(start + 1, BLOCKS))
        some.append(said(number, start, stop, draw(st.integers(1_000, 50_000)), draw(st.sampled_from(states))))
    return Layout.of(some, BLOCKS)


@given(swarms())
@settings(max_examples=60)
def test_a_plan_pays_moves_only_what_may_move_and_never_leaves_a_block_alone(layout: Layout) -> None:
    moves = find_moves(layout, {})
    if not moves:
        return
    gaps, bottleneck = layout.quality
    gaps_then, bottleneck_then = layout.after(moves).quality
    assert gaps_then > gaps or (gaps_then == gaps and bottleneck_then >= GAIN * bottleneck > 0)
    assert all(layout.seats[node].movable and layout.seats[node].start != start for node, start in moves.items())
    assert sorted(order(layout, moves)) == sorted(moves)
    for node in order(layout, moves):
        assert layout.may_leave(node)
        served = [count > 0 for count in layout.nodes]
        layout = layout.after({node: moves[node]})
        assert all(now for was, now in zip(served, layout.nodes, strict=True) if was)


@pytest.mark.parametrize("examples", [10, pytest.param(40, marks=pytest.mark.slow)])
def test_a_swarm_in_which_nothing_else_changes_comes_to_rest_and_never_opens_a_gap(examples: int) -> None:
    settings(max_examples=examples)(given(swarms(), st.randoms(use_true_random=False))(comes_to_rest))()


def comes_to_rest(layout: Layout, source: random.Random) -> None:
    """Each node has a plan of its own from its own last look, and they look in any order."""
    plans: dict[PublicKey, dict[PublicKey, int]] = {node: {} for node in layout.seats}
    moves, quiet = 0, 0
    while quiet < 2:
        quiet += 1
        for node in source.sample(list(layout.seats), len(layout.seats)):
            plans[node] = find_moves(layout, plans[node])
            if may_begin(layout, plans[node], node):
                assert layout.may_leave(node)
                layout = layout.after({node: plans[node][node]})
                moves, quiet = moves + 1, 0
        assert moves <= 4 * len(layout.seats)


@given(swarms())
@settings(max_examples=20)
def test_all_nodes_find_the_same_plan(layout: Layout) -> None:
    assert find_moves(layout, {}) == find_moves(Layout(dict(layout.seats), layout.throughput, layout.nodes), {})


@given(swarms(states=[NodeState.SERVING]))
@settings(max_examples=40)
def test_somebody_may_always_begin_a_plan(layout: Layout) -> None:
    moves = find_moves(layout, {})
    assert not moves or any(may_begin(layout, moves, node) for node in moves)


def test_a_node_that_is_not_needed_goes_where_nobody_is() -> None:
    layout = Layout.of([said(1, 0, 4), said(2, 0, 4)], BLOCKS)
    moves = find_moves(layout, {})
    assert list(moves.values()) == [4]
    [node] = moves
    assert may_begin(layout, moves, node)
    assert not any(may_begin(layout, moves, other) for other in layout.seats if other != node)


def test_the_only_node_of_its_blocks_stays_even_if_others_are_served_by_nobody() -> None:
    assert find_moves(Layout.of([said(1, 0, 4)], BLOCKS), {}) == {}
    assert find_moves(Layout.of([said(1, 0, 4), said(2, 2, 6)], BLOCKS), {}) == {}


def test_a_swarm_at_nine_tenths_of_its_best_is_left_alone() -> None:
    def swarm(decode_us: int) -> Layout:
        """The second half is the bottleneck; the third node would be of more use there."""
        return Layout.of([said(1, 0, 4, 10_000), said(2, 4, 8, 11_500), said(3, 0, 4, decode_us)], BLOCKS)

    assert find_moves(swarm(130_000), {}) == {}
    assert list(find_moves(swarm(50_000), {}).values()) == [4]


def test_pinned_nodes_are_counted_and_left_where_they_are() -> None:
    fixed = [said(1, 0, 4, state=NodeState.PINNED), said(2, 0, 4, state=NodeState.PINNED)]
    assert find_moves(Layout.of(fixed, BLOCKS), {}) == {}
    assert list(find_moves(Layout.of([*fixed, said(3, 0, 4)], BLOCKS), {})) == [PublicKey(bytes([3]) * 32)]


def test_several_nodes_move_when_no_single_move_helps() -> None:
    swarm = [
        said(1, 0, 4, 10_000),
        said(2, 0, 4, 10_000),
        said(3, 4, 8, 60_000),
        said(4, 0, 2, 15_000),
        said(5, 2, 4, 15_000),
    ]
    layout = Layout.of(swarm, BLOCKS)
    moves = find_moves(layout, {})
    assert layout.after(moves).quality[1] >= GAIN * layout.quality[1]


def test_what_is_left_of_a_plan_is_kept() -> None:
    layout = Layout.of([said(1, 0, 4), said(2, 0, 4), said(3, 0, 4), said(4, 4, 8)], BLOCKS)
    assert is_worth(Layout.of([said(1, 0, 4), said(2, 0, 4)], BLOCKS), {PublicKey(bytes([2]) * 32): 4})
    gone = {PublicKey(b"g" * 32): 1, PublicKey(bytes([1]) * 32): 7}
    assert find_moves(layout, gone) == find_moves(layout, {})


def test_a_mover_is_relieved_by_those_that_mean_to_stay() -> None:
    stays = [said(1, 0, 3), said(2, 2, 6, state=NodeState.PINNED)]
    assert relieved(stays, (1, 5))
    assert not relieved(stays, (1, 7))
    for state in (NodeState.MOVING, NodeState.JOINING, NodeState.LEAVING):
        assert not relieved([*stays, said(3, 0, 8, state=state)], (1, 7))
