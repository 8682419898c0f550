"""One at a time: each session has a cache of its own, counted in positions, and fails alone."""

from collections.abc import Callable

import pytest
import torch
from nectar_node.runner import Piece
from nectar_node.single import SingleRunner
from nectar_node.span import SpanModel

from tests.node.sessions import START, STOP, WIDTH, cached, noise, run, turns_of


@pytest.fixture
def span(load_span: Callable[..., SpanModel]) -> SpanModel:
    return load_span("qwen3_next", START, STOP)


@pytest.mark.parametrize("first", [True, False])
def test_a_session_that_fails_leaves_those_of_the_same_iteration_right(span: SpanModel, first: bool) -> None:
    runner, turns = SingleRunner(span, 64), turns_of(noise(1, 8), 5, 1, 1, 1)
    kv, other = (runner.reserve(START, STOP, 16, (0,)) for _ in range(2))
    outputs = [run(runner, (kv, turns[0]))[0]]
    pieces = [Piece(kv, 5, turns[1].hidden), Piece(other, 0, torch.zeros(1, 1, WIDTH - 1))]
    if not first:
        pieces.reverse()
    for piece in pieces:
        runner.prepare(piece)
    with torch.inference_mode():
        good, bad = sorted(runner.run(pieces), key=lambda result: isinstance(result, Exception))
    assert isinstance(good, torch.Tensor)
    assert isinstance(bad, RuntimeError)
    outputs += [good, *(run(runner, (kv, turn))[0] for turn in turns[2:])]
    for output, expected in zip(outputs, cached(span, turns), strict=True):
        assert torch.equal(output, expected)


def test_positions_are_counted_for_every_row(span: SpanModel) -> None:
    runner = SingleRunner(span, 64)
    kv = runner.reserve(START, STOP, 20, (0, 3))
    assert runner.kv_free == 24
    assert runner.reserve(START, STOP, 25, (0,)) is None
    assert runner.kv_free == 24
    runner.release(kv)
    assert runner.kv_free == runner.kv_total == 64


@pytest.mark.parametrize(("start", "stop"), [(1, 3), (1, 2), (3, 4)])
def test_blocks_whose_state_is_all_recurrent_run_as_well(
    load_span: Callable[..., SpanModel], start: int, stop: int
) -> None:
    span, turns = load_span("qwen3_next", start, stop), turns_of(noise(2, 9), 6, 1, 2)
    runner = SingleRunner(span, 64)
    kv = runner.reserve(start, stop, 16, (0, 0))
    outputs = [run(runner, (kv, turn))[0] for turn in turns]
    for output, expected in zip(outputs, cached(load_span("qwen3_next", 1, 5), turns, start, stop), strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-3)
