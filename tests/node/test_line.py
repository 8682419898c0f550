"""The line through an iteration's rows and seconds: found, followed, and not bent by an interruption."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.line import Line

seconds = st.floats(1e-5, 1.0)


@given(seconds, seconds, st.lists(st.integers(1, 512), min_size=20, max_size=40), seconds)
def test_a_line_is_found(fixed_s: float, row_s: float, sizes: list[int], prior_s: float) -> None:
    line = Line()
    for rows in (*(1 << size for size in range(10)), *sizes):  # no size that would be taken for an interruption
        line.count(rows, fixed_s + row_s * rows, prior_s)
    assert line.row_s(prior_s) == pytest.approx(row_s, rel=0.01, abs=1e-4)
    assert line.at(sizes[-1], prior_s) == pytest.approx(fixed_s + row_s * sizes[-1], rel=0.02, abs=0.02)


def test_what_has_changed_is_followed() -> None:
    line = Line()
    for row_s in (0.01, 0.001):
        for turn in range(300):
            rows = 1 + turn % 20
            line.count(rows, 0.02 + row_s * rows, 0.0)
        assert line.row_s(0.0) == pytest.approx(row_s, rel=0.1)


def test_an_interruption_counts_for_little() -> None:
    line = Line()
    for turn in range(60):
        line.count(1 + turn % 20, 0.02 + 0.001 * (1 + turn % 20), 0.0)
    line.count(20, 30.0, 0.0)
    assert line.row_s(0.0) < 0.003


def test_a_slope_that_cannot_be_seen_is_taken_on_trust_and_never_falls() -> None:
    line = Line()
    for _ in range(5):
        line.count(4, 0.1, 0.007)
    assert line.row_s(0.007) == pytest.approx(0.007)
    assert line.at(0, 0.007) == pytest.approx(0.072)
    for rows, took_s in ((1, 0.2), (50, 0.1)):
        line.count(rows, took_s, 0.0)
    assert line.row_s(0.0) == 0.0
