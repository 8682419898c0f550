"""A span is tried out before it serves: the fastest way that gives what it should, or a refusal with reasons."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar_node import trial
from nectar_node.errors import SpanError
from nectar_node.packed import PackedRunner
from nectar_node.padded import PaddedRunner
from nectar_node.runner import Runner
from nectar_node.single import SingleRunner
from nectar_node.span import SpanModel
from nectar_node.trial import MIN_POSITIONS, choose_runner, measure

from tests.families.configs import CONFIGS, PACKED, PADDED, SINGLE
from tests.node.sessions import START, STOP

LoadSpan = Callable[..., SpanModel]
WAYS = {family: PackedRunner for family in PACKED} | dict.fromkeys(PADDED, PaddedRunner)
WAYS |= dict.fromkeys(SINGLE, SingleRunner)


@pytest.mark.parametrize("family", CONFIGS)
def test_each_family_is_run_the_fastest_way_that_it_allows(family: str, choose: Callable[..., Runner]) -> None:
    assert type(choose(family)) is WAYS[family]


@pytest.mark.parametrize("family", ["llama", "bloom", "qwen3_next"])
def test_a_span_is_measured_before_it_serves(family: str, choose: Callable[..., Runner], load_span: LoadSpan) -> None:
    runner = choose(family)
    speed = measure(load_span(family, START, STOP), runner)
    assert speed.decode_s > 0
    assert speed.prefill_s > 0
    assert speed.iteration_s > 0
    assert runner.kv_free == runner.kv_total


@pytest.mark.parametrize("positions", [1, MIN_POSITIONS, MIN_POSITIONS + 1])
def test_a_runner_has_the_room_that_was_asked_for_and_enough_to_be_tried(positions: int, load_span: LoadSpan) -> None:
    span = load_span("llama", START, STOP)
    runner = choose_runner(span, positions)
    assert runner.kv_free == runner.kv_total == max(positions, MIN_POSITIONS)
    assert measure(span, runner).decode_s > 0


def test_a_way_whose_results_are_not_the_spans_own_is_passed_over(
    load_span: LoadSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(self: Any, piece: Any) -> None:
        for row in piece.kv.rows:
            row.length = 0

    monkeypatch.setattr(PackedRunner, "prepare", forgetful)
    assert type(choose_runner(load_span("llama", START, STOP), 64)) is PaddedRunner


def test_a_span_that_no_way_computes_is_refused_with_every_reason(
    load_span: LoadSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = load_span("llama", START, STOP)
    calls, forward = [0], span.forward

    def moody(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        return forward(*args, **kwargs) + calls[0]

    monkeypatch.setattr(span, "forward", moody)
    with pytest.raises(SpanError, match=r"llama cannot be served: .*PackedRunner.*PaddedRunner.*SingleRunner"):
        choose_runner(span, 64)


def test_a_device_without_room_for_the_kv_is_said_and_not_worked_around(
    load_span: LoadSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(span: SpanModel, runner: Runner) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(trial, "_try", exhausted)
    with pytest.raises(SpanError, match=r"4096 positions of KV do not fit .* 20 GiB"):
        choose_runner(load_span("llama", START, STOP), 4096)
