"""Packed: one forward for everybody, and nothing of it outlives the iteration but what was written to the arena."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_node.errors import SpanError
from nectar_node.packed import PackedRunner
from nectar_node.runner import Piece
from nectar_node.span import SpanModel

from tests.node.sessions import START, STOP, WIDTH, Turn, cached, noise, recomputed, run, turns_of

NOISE = 1e-3
BATCH, LENGTH = 3, 24
LoadSpan = Callable[..., SpanModel]


@pytest.fixture
def span(load_span: LoadSpan) -> SpanModel:
    return load_span("llama", START, STOP)


@pytest.fixture
def runner(span: SpanModel) -> PackedRunner:
    return PackedRunner(span, 256)


@pytest.fixture
def forwards(span: SpanModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each forward had."""
    rows: list[int] = []
    forward = span.forward

    def counted(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows.append(hidden.shape[0] * hidden.shape[1])
        return forward(hidden, *args, **kwargs)

    monkeypatch.setattr(span, "forward", counted)
    return rows


# What a client may do: how far to roll back, how many tokens, and which row each row continues.
orders = st.just(()) | st.tuples(*[st.integers(0, BATCH - 1)] * BATCH)
actions = st.lists(st.tuples(st.integers(0, 6) | st.just(0), st.integers(1, 7), orders), min_size=1, max_size=8)


@settings(max_examples=30)
@given(actions, st.integers(0, 3))
def test_whatever_a_client_does_its_rows_are_what_they_are_when_computed_from_nothing(
    load_span: LoadSpan, actions: list[tuple[int, int, tuple[int, ...]]], pad: int
) -> None:
    span = load_span("mistral", START, STOP)
    runner, turns, length = PackedRunner(span, BATCH * LENGTH), list[Turn](), 0
    for seed, (back, tokens, order) in enumerate(actions):
        position = max(0, min(length - back, LENGTH - tokens))
        turns.append(Turn(position, noise(BATCH, tokens, seed), order))
        length = position + tokens
    kv = runner.reserve(START, STOP, LENGTH, (pad,) * BATCH)
    outputs = [run(runner, (kv, turn))[0] for turn in turns]
    expected = recomputed(span, turns, (pad,) * BATCH)
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(expected, 1), rtol=0, atol=NOISE)


def test_an_iteration_is_one_forward_however_many_take_part(runner: PackedRunner, forwards: list[int]) -> None:
    kvs = [runner.reserve(START, STOP, 16, pads) for pads in ((0,), (0, 2), (0,))]
    run(runner, (kvs[0], Turn(0, noise(1, 5))), (kvs[1], Turn(0, noise(2, 6))), (kvs[2], Turn(0, noise(1, 1))))
    assert forwards == [5 + 6 + 4 + 1]


def test_a_step_of_nothing_but_padding_needs_no_forward(runner: PackedRunner, forwards: list[int]) -> None:
    kv = runner.reserve(START, STOP, 16, (4, 6))
    assert not run(runner, (kv, Turn(0, noise(2, 3))))[0].any()
    assert forwards == []
    assert run(runner, (kv, Turn(3, noise(2, 2))))[0].any(-1).tolist() == [[False, True], [False, False]]


def test_outputs_of_one_forward_have_memory_of_their_own(runner: PackedRunner) -> None:
    kvs = [runner.reserve(START, STOP, 16, (0,)) for _ in range(2)]
    outputs = run(runner, *((kv, Turn(0, noise(1, 3))) for kv in kvs))
    assert [output.untyped_storage().nbytes() for output in outputs] == [3 * WIDTH * 4] * 2


def test_an_exception_leaves_every_session_where_it_was(runner: PackedRunner, span: SpanModel) -> None:
    turns = turns_of(noise(1, 8), 5, 1, 1, 1)
    kv, other = (runner.reserve(START, STOP, 16, (0,)) for _ in range(2))
    run(runner, (kv, turns[0]))
    piece, wrong = Piece(kv, 5, turns[1].hidden), Piece(other, 0, torch.zeros(1, 1, WIDTH - 1))
    for each in (piece, wrong):
        runner.prepare(each)
    with pytest.raises(RuntimeError), torch.inference_mode():
        runner.run([piece, wrong])
    with torch.inference_mode():
        outputs = [runner.run([piece])[0], *(run(runner, (kv, turn))[0] for turn in turns[2:])]
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(cached(span, turns)[1:], 1), rtol=0, atol=NOISE)


def test_whoever_runs_the_blocks_beside_a_runner_gets_the_familys_own_attention(
    runner: PackedRunner, span: SpanModel
) -> None:
    turns = turns_of(noise(1, 4), 4)
    expected = cached(span, turns)
    kv = runner.reserve(START, STOP, 16, (0,))
    first = run(runner, (kv, turns[0]))[0]
    assert torch.equal(cached(span, turns)[0], expected[0])
    assert torch.equal(run(runner, (kv, turns[0]))[0], first)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("bloom", "attention interface"),
        ("llama4_text", "chunked_attention"),
        ("phi3_longrope", "longest row"),
        ("qwen3_next", "attention interface"),
    ],
)
def test_a_family_that_cannot_be_packed_is_refused_with_its_reason(
    family: str, reason: str, load_span: LoadSpan
) -> None:
    with pytest.raises(SpanError, match=reason):
        PackedRunner(load_span(family, START, STOP), 64)


def test_a_session_that_does_not_fit_reserves_nothing(runner: PackedRunner) -> None:
    kv = runner.reserve(START, STOP, 100, (0, 0))
    assert runner.kv_free == 56
    assert runner.reserve(START, STOP, 57, (0,)) is None
    assert runner.reserve(START, STOP, 20, (0, 0, 0)) is None
    assert runner.kv_free == 56
    runner.release(kv)
    assert runner.kv_free == runner.kv_total == 256
