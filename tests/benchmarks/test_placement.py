"""Simulated nodes find good places without opening a gap, and what they are held against is the best there is."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.optimum import PRECISION, best_bottleneck
from benchmarks.placement import simulate, summary

BLOCKS = 6
shapes = st.lists(st.tuples(st.integers(1, BLOCKS), st.integers(1, 50).map(float)), min_size=1, max_size=4)


@given(shapes)
def test_the_best_bottleneck_is_that_of_trying_all_places(nodes: list[tuple[int, float]]) -> None:
    def bottleneck(starts: tuple[int, ...]) -> float:
        spans = [(range(start, start + length), rate) for start, (length, rate) in zip(starts, nodes, strict=True)]
        return min(sum(rate for span, rate in spans if block in span) for block in range(BLOCKS))

    best = max(map(bottleneck, product(*(range(BLOCKS - length + 1) for length, _ in nodes))))
    found = best_bottleneck(nodes, BLOCKS)
    if best:
        assert best * (1 - 1e-6) <= found <= best * PRECISION * (1 + 1e-6)
    else:
        assert found <= 0.01 * sum(rate for _, rate in nodes)


@pytest.mark.slow
def test_a_swarm_settles_near_its_best_without_gaps_or_herds() -> None:
    result = simulate(5)
    assert (result.gaps, result.herds) == (0, 0)
    assert result.ratio >= 0.85
    assert result.moves
    assert summary([result])["bottleneck_ratio"] == result.ratio
