"""Speed counts decode steps and prompts through the whole span, and nothing else."""

from collections.abc import Callable

import pytest
from nectar_node.span import SpanModel
from nectar_node.speed import PREFILL_TOKENS, Speed, measure_span


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Readings that the clock will give, in order."""
    readings: list[float] = []
    monkeypatch.setattr("nectar_node.speed.time.perf_counter", lambda: readings.pop(0))
    return readings


def test_single_tokens_and_prompts_are_averaged_apart(clock: list[float]) -> None:
    speed = Speed()
    clock += [0.0, 0.5, 1.0, 2.5, 3.0, 9.4]
    with speed.measure(1):
        pass
    assert speed.decode_s == 0.5
    with speed.measure(1):
        pass
    assert speed.decode_s == pytest.approx(0.9 * 0.5 + 0.1 * 1.5)
    with speed.measure(64):
        pass
    assert speed.prefill_s == pytest.approx(0.1)
    assert speed.decode_us == 600_000
    assert speed.prefill_us == 100_000


def test_short_prompts_and_parts_of_the_span_count_for_nothing(clock: list[float]) -> None:
    speed = Speed()
    clock += [0.0, 1.0] * 3
    for tokens, whole in ((1, False), (64, False), (PREFILL_TOKENS // 2 - 1, True)):
        with speed.measure(tokens, whole=whole):
            pass
    assert (speed.decode_s, speed.prefill_s) == (0.0, 0.0)


def test_a_step_that_fails_is_not_counted() -> None:
    speed = Speed()

    def fail() -> None:
        with speed.measure(1):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it is ours, and has no message
        fail()
    assert speed.decode_s == 0.0


def test_what_is_announced_fits_into_its_field() -> None:
    speed = Speed()
    assert (speed.decode_us, speed.prefill_us) == (1, 1)
    speed.decode_s = speed.prefill_s = 1e9
    assert speed.decode_us == speed.prefill_us == 0xFFFFFFFF


@pytest.mark.parametrize("family", ["llama", "mistral", "bloom"])
def test_a_span_is_measured_before_it_serves(family: str, load_span: Callable[[str, int, int], SpanModel]) -> None:
    speed = measure_span(load_span(family, 1, 5))
    assert speed.decode_s > 0
    assert speed.prefill_s > 0
