"""Padded: single tokens of all sessions in one forward, longer pieces row by row, within the arena's own size."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar_node.errors import SpanError
from nectar_node.padded import PaddedRunner
from nectar_node.runner import Piece
from nectar_node.span import SpanModel

from tests.node.sessions import START, STOP, WIDTH, Turn, cached, noise, run, turns_of

NOISE = 1e-3
LENGTHS = (40, 3, 3, 3, 7, 3)


@pytest.fixture
def span(load_span: Callable[..., SpanModel]) -> SpanModel:
    return load_span("bloom", START, STOP)


@pytest.fixture
def forwards(span: SpanModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The rows of each forward, and the positions that its cache held for each."""
    shapes: list[tuple[int, int]] = []
    forward = span.forward

    def seen(hidden: torch.Tensor, cache: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        shapes.append((hidden.shape[0], cache.get_mask_sizes(hidden.shape[1], 0)[0]))
        return forward(hidden, cache, *args, **kwargs)

    monkeypatch.setattr(span, "forward", seen)
    return shapes


def test_single_tokens_of_all_sessions_are_one_forward_and_prompts_one_each(
    span: SpanModel, forwards: list[tuple[int, int]]
) -> None:
    runner = PaddedRunner(span, 256)
    kvs = [runner.reserve(START, STOP, 16, (0,)) for _ in range(3)]
    run(runner, *((kv, Turn(0, noise(1, 4))) for kv in kvs[:2]))
    assert forwards == [(1, 4), (1, 4)]
    del forwards[:]
    run(runner, *((kv, Turn(4, noise(1, 1))) for kv in kvs[:2]), (kvs[2], Turn(0, noise(1, 5))))
    assert sorted(forwards) == [(1, 5), (2, 5)]


def test_pasts_side_by_side_never_need_more_room_than_the_arena_has(
    span: SpanModel, forwards: list[tuple[int, int]]
) -> None:
    runner = PaddedRunner(span, 84)
    sessions = [turns_of(noise(1, length + 1, seed=at), length, 1) for at, length in enumerate(LENGTHS)]
    kvs = [runner.reserve(START, STOP, length + 1, (0,)) for length in LENGTHS]
    expected = [cached(span, turns)[1] for turns in sessions]
    for kv, turns in zip(kvs, sessions, strict=True):
        run(runner, (kv, turns[0]))
    del forwards[:]
    outputs = run(runner, *((kv, turns[1]) for kv, turns in zip(kvs, sessions, strict=True)))
    torch.testing.assert_close(torch.cat(outputs), torch.cat(expected), rtol=0, atol=NOISE)
    assert sum(rows for rows, _ in forwards) == len(LENGTHS)
    assert all(rows * length <= runner.kv_total for rows, length in forwards)
    assert len(forwards) == 2


def test_an_exception_leaves_every_session_where_it_was(span: SpanModel) -> None:
    runner = PaddedRunner(span, 64)
    turns = turns_of(noise(1, 8), 5, 1, 1, 1)
    kv, other = (runner.reserve(START, STOP, 16, (0,)) for _ in range(2))
    run(runner, (kv, turns[0]))
    piece, wrong = Piece(kv, 5, turns[1].hidden), Piece(other, 0, torch.zeros(1, 2, WIDTH - 1))
    for each in (piece, wrong):
        runner.prepare(each)
    with pytest.raises(RuntimeError), torch.inference_mode():
        runner.run([piece, wrong])
    with torch.inference_mode():
        outputs = [runner.run([piece])[0], *(run(runner, (kv, turn))[0] for turn in turns[2:])]
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(cached(span, turns)[1:], 1), rtol=0, atol=NOISE)


@pytest.mark.parametrize(("family", "reason"), [("qwen3_next", "recurrent"), ("phi3_longrope", "longest row")])
def test_a_family_that_cannot_be_padded_is_refused_with_its_reason(
    family: str, reason: str, load_span: Callable[..., SpanModel]
) -> None:
    with pytest.raises(SpanError, match=reason):
        PaddedRunner(load_span(family, START, STOP), 64)
