"""A node takes the blocks of which the swarm does least."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.errors import PlacementError
from nectar_node.placement import block_throughput, blocks_that_fit, choose_span, need_a_block, parse_span
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import PublicKey
from nectar_protocol.manifest import ModelID

BLOCKS = 12


def announcement(start: int, stop: int, decode_us: int) -> Announcement:
    state = NodeState.SERVING if decode_us else NodeState.JOINING
    return Announcement(
        PublicKey(bytes(32)), ModelID(bytes(32)), 0, 1, start, stop, Profile.F32, state, decode_us, 1, ()
    )


spans = st.tuples(st.integers(0, BLOCKS), st.integers(0, BLOCKS)).filter(lambda ends: ends[0] < ends[1])
nodes = st.lists(st.builds(lambda ends, us: announcement(*ends, us), spans, st.integers(0, 100_000)), max_size=6)


@given(nodes, st.integers(1, BLOCKS + 3))
def test_the_window_holds_a_worst_block_and_no_other_window_is_worse(present: list[Announcement], length: int) -> None:
    start, stop = choose_span(present, BLOCKS, length)
    assert 0 <= start < stop <= BLOCKS
    assert stop - start == min(length, BLOCKS)
    throughput = block_throughput(present, BLOCKS)
    assert min(throughput) in throughput[start:stop]
    windows = [sorted(throughput[at : at + stop - start]) for at in range(BLOCKS - (stop - start) + 1)]
    assert sorted(throughput[start:stop]) == min(windows)


@given(nodes, st.integers(BLOCKS, 2 * BLOCKS))
def test_the_whole_model_is_taken_where_it_fits(present: list[Announcement], length: int) -> None:
    assert choose_span(present, BLOCKS, length) == (0, BLOCKS)


@given(nodes)
def test_a_blocks_throughput_is_the_sum_over_its_nodes(present: list[Announcement]) -> None:
    measured = [one for one in present if one.decode_us]
    throughput = block_throughput(measured, BLOCKS)
    for block in range(BLOCKS):
        serving = [1e6 / one.decode_us for one in measured if one.start <= block < one.stop]
        assert throughput[block] == pytest.approx(sum(serving))


def test_a_joining_node_counts_as_the_average_of_the_others() -> None:
    present = [announcement(0, 4, 10_000), announcement(4, 8, 2_500), announcement(8, 12, 0)]
    assert block_throughput(present, BLOCKS) == [100.0] * 4 + [400.0] * 4 + [250.0] * 4
    assert choose_span(present, BLOCKS, 4) == (0, 4)


def test_nodes_that_join_an_empty_swarm_together_take_different_blocks() -> None:
    assert choose_span([], BLOCKS, 4) == (0, 4)
    assert choose_span([announcement(0, 4, 0)], BLOCKS, 4) == (4, 8)


def test_an_announcement_beyond_the_models_blocks_is_cut() -> None:
    assert block_throughput([announcement(10, 99, 1_000_000)], BLOCKS) == [0.0] * 10 + [1.0] * 2
    assert block_throughput([announcement(50, 99, 1_000_000)], BLOCKS) == [0.0] * 12


@pytest.mark.parametrize(
    ("text", "span"), [("0:12", (0, 12)), ("3:5", (3, 5)), (":4", (0, 4)), ("8:", (8, 12)), (":", (0, 12))]
)
def test_a_span_is_read(text: str, span: tuple[int, int]) -> None:
    assert parse_span(text, BLOCKS) == span


@pytest.mark.parametrize("text", ["", "5", "a:b", "0-4", "1:2:3", "0:x"])
def test_what_is_no_span_is_refused_with_the_form_that_is_wanted(text: str) -> None:
    with pytest.raises(PlacementError, match=r"write START:STOP"):
        parse_span(text, BLOCKS)


@pytest.mark.parametrize("text", ["4:4", "5:4", "-1:4", "0:13", "12:"])
def test_a_span_outside_the_model_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(PlacementError, match=r"this model has blocks 0:12"):
        parse_span(text, BLOCKS)


def test_memory_is_counted_by_the_largest_block_and_its_kv() -> None:
    assert blocks_that_fit((10, 20, 10), 5, 24) == 0
    assert blocks_that_fit((10, 20, 10), 5, 60) == need_a_block((10, 20, 10), 5, 60) == 2
    assert blocks_that_fit((10, 20, 10), 5, 10_000) == 3
    with pytest.raises(PlacementError, match="not one block fits: 20 MiB are needed, 19 MiB may be used"):
        need_a_block((15 << 20,), 5 << 20, (20 << 20) - 1)
