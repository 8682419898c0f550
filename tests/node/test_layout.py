"""Who serves which blocks, counted from announcements and changed by moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.layout import Layout
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import PublicKey
from nectar_protocol.manifest import ModelID

BLOCKS = 8


def said(
    number: int, start: int, stop: int, decode_us: int = 10_000, state: NodeState = NodeState.SERVING
) -> Announcement:
    node = PublicKey(bytes([number]) * 32)
    return Announcement(node, ModelID(bytes(32)), 0, 1, start, stop, Profile.F32, state, decode_us, 1, ())


spans = st.tuples(st.integers(0, BLOCKS), st.integers(0, BLOCKS)).filter(lambda ends: ends[0] < ends[1])


def test_throughput_is_the_sum_of_rates_and_the_bottleneck_the_least() -> None:
    layout = Layout.of([said(1, 0, 6, 10_000), said(2, 4, 8, 5_000)], BLOCKS)
    assert layout.throughput == [100] * 4 + [300] * 2 + [200] * 2
    assert layout.nodes == [1] * 4 + [2] * 2 + [1] * 2
    assert layout.quality == (0, 100)


def test_blocks_that_nobody_serves_count_before_any_throughput() -> None:
    assert Layout.of([said(1, 0, 5, 1)], BLOCKS).quality == (-3, 0)
    assert Layout.of([], BLOCKS).quality == (-BLOCKS, 0)
    assert Layout.of([said(1, 0, 8, 1_000_000)], BLOCKS).quality > Layout.of([said(1, 0, 7, 1)], BLOCKS).quality


def test_those_that_leave_do_not_count_and_those_that_load_count_like_the_average() -> None:
    layout = Layout.of(
        [said(1, 0, 4), said(2, 0, 8, state=NodeState.LEAVING), said(3, 4, 8, 0, NodeState.JOINING)], BLOCKS
    )
    assert layout.throughput == [100] * 8


def test_only_nodes_that_serve_and_are_not_pinned_can_be_moved() -> None:
    layout = Layout.of([said(state, 0, 4, state=state) for state in NodeState], BLOCKS)
    movable = {NodeState(node[0]) for node, seat in layout.seats.items() if seat.movable}
    assert movable == {NodeState.SERVING, NodeState.MOVING}


def test_blocks_beyond_the_model_are_cut() -> None:
    layout = Layout.of([said(1, 6, 99), said(2, 50, 99)], BLOCKS)
    assert layout.nodes == [0] * 6 + [1] * 2


def test_a_node_may_leave_when_others_serve_each_of_its_blocks() -> None:
    layout = Layout.of([said(1, 0, 4), said(2, 2, 8), said(3, 4, 8)], BLOCKS)
    one, two, three = layout.seats
    assert [layout.may_leave(node) for node in (one, two, three)] == [False, True, True]


@given(st.lists(spans, min_size=1, max_size=5), st.data())
def test_a_layout_after_moves_is_that_of_nodes_which_announce_the_new_places(
    some: list[tuple[int, int]], data: st.DataObject
) -> None:
    before = [said(number, *span, decode_us=1000 * (number + 1)) for number, span in enumerate(some)]
    moves = {a.node: data.draw(st.integers(0, BLOCKS - (a.stop - a.start))) for a in before if data.draw(st.booleans())}
    after = [
        said(a.node[0], start := moves.get(a.node, a.start), start + a.stop - a.start, a.decode_us) for a in before
    ]
    layout, expected = Layout.of(before, BLOCKS).after(moves), Layout.of(after, BLOCKS)
    assert layout.nodes == expected.nodes
    assert layout.seats == expected.seats
    assert layout.throughput == pytest.approx(expected.throughput)
    assert [not rate for rate in layout.throughput] == [not count for count in layout.nodes]


def test_the_same_nodes_at_the_same_places_resemble_each_other_while_their_speeds_are_about_the_same() -> None:
    layout = Layout.of([said(1, 0, 4), said(2, 4, 8)], BLOCKS)
    assert layout.resembles(Layout.of([said(1, 0, 4, 10_200), said(2, 4, 8)], BLOCKS))
    assert not layout.resembles(Layout.of([said(1, 0, 4, 20_000), said(2, 4, 8)], BLOCKS))
    assert not layout.resembles(Layout.of([said(1, 1, 5), said(2, 4, 8)], BLOCKS))
    assert not layout.resembles(Layout.of([said(1, 0, 4)], BLOCKS))
    assert not layout.resembles(Layout.of([said(1, 0, 4, state=NodeState.PINNED), said(2, 4, 8)], BLOCKS))
