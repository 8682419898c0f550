"""Speed counts decode steps, prompts and what a prompt adds beside them, and nothing else."""

import pytest
from nectar_node.scheduler import MAX_ROWS
from nectar_node.speed import PROMPT_ROWS, SMOOTHING, Speed


def test_single_tokens_iterations_and_prompts_are_averaged_apart() -> None:
    speed = Speed()
    speed.count(1, 0, 0.5)
    assert (speed.decode_s, speed.iteration_s) == (0.5, 0.5)
    speed.count(1, 0, 1.5)
    assert speed.decode_s == speed.iteration_s == pytest.approx((1 - SMOOTHING) * 0.5 + SMOOTHING * 1.5)
    speed.count(8, 0, 2.6)
    assert speed.decode_s == pytest.approx(0.6), "of one token alone"
    assert speed.iteration_s == pytest.approx(0.8)
    speed.count(0, 64, 6.4)
    assert speed.prefill_s == pytest.approx(0.1)
    assert (speed.decode_us, speed.prefill_us) == (600_000, 100_000)


def test_a_short_prompt_tells_nothing_of_a_long_ones_price() -> None:
    speed = Speed()
    speed.count(0, PROMPT_ROWS - 1, 1.0)
    assert speed == Speed()


def test_what_a_prompt_adds_to_an_iteration_is_counted_by_its_rows() -> None:
    speed = Speed(iteration_s=0.5)
    speed.count(4, 10, 1.5)
    assert speed.added_s == pytest.approx(0.1)
    assert (speed.iteration_s, speed.prefill_s, speed.decode_s) == (0.5, 0.0, 0.0)
    speed.count(4, 10, 0.4)
    assert speed.added_s == pytest.approx(0.09), "never less than nothing"


def test_what_is_announced_fits_into_its_field() -> None:
    speed = Speed()
    assert (speed.decode_us, speed.prefill_us) == (1, 1)
    speed.decode_s = speed.prefill_s = 1e9
    assert speed.decode_us == speed.prefill_us == 0xFFFFFFFF


def test_iterations_are_known_by_about_how_many_rows_they_have() -> None:
    speed = Speed()
    assert speed.decoding_s(3) == 0.0
    for rows, seconds in ((4, 1.0), (7, 2.0), (16, 3.0)):
        speed.count(rows, 0, seconds)
    assert speed.decoding_s(5) == pytest.approx((1 - SMOOTHING) * 1.0 + SMOOTHING * 2.0), "four to seven are as one"
    assert speed.decoding_s(9) == speed.decoding_s(4), "not measured: the next smaller"
    assert speed.decoding_s(1000) == 3.0
    assert speed.decoding_s(1) == speed.decoding_s(4), "nothing smaller was"
    speed.count(4, 10, 99.0)
    assert speed.decoding_s(16) == 3.0, "with a prompt it is no such iteration"


@pytest.mark.parametrize(("fixed_s", "row_s", "spare"), [(0.02, 0.001, 10), (0.01, 0.01, 0), (0.02, 0.0004, 25)])
def test_the_rows_to_spare_add_half_of_what_an_iteration_takes_at_least(
    fixed_s: float, row_s: float, spare: int
) -> None:
    speed = Speed()
    for turn in range(100):
        rows = 1 + turn % 3
        speed.count(rows, 0, fixed_s + row_s * rows)
    assert speed.spare_rows == pytest.approx(spare, abs=1)


def test_before_rows_were_seen_to_differ_each_costs_what_a_prompts_does() -> None:
    speed = Speed(prefill_s=0.001)
    assert speed.spare_rows == 0
    for _ in range(10):
        speed.count(1, 0, 0.021)
    assert speed.spare_rows == 10


def test_where_rows_cost_nothing_there_is_no_end_of_them() -> None:
    speed = Speed()
    for rows in (1, 64, 1, 64):
        speed.count(rows, 0, 0.02)
    assert speed.spare_rows > MAX_ROWS
