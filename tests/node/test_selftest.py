"""The self-test lets honest spans pass and stops those that depend on more than their input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar_node.errors import SpanError
from nectar_node.selftest import self_test
from nectar_node.span import SpanModel
from nectar_swarm.anatomy import Anatomy, find_stack
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.folder import LocalFolder


@pytest.fixture
def fresh_span(checkpoint_folder: Callable[[str], Path], anatomy_of: Callable[[str], Anatomy]) -> SpanModel:
    checkpoint = Checkpoint(LocalFolder(checkpoint_folder("llama")))
    return SpanModel(checkpoint, anatomy_of("llama"), 1, 4, torch.float32, torch.device("cpu"))


def patch_block(span: SpanModel, number: int, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    owner, stack = find_stack(span.model)
    gate = getattr(owner, stack)[number].forward
    honest = gate.forward

    def changed(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return honest(change(hidden), *args, **kwargs)

    gate.forward = changed


@pytest.mark.parametrize("family", ["llama", "mistral", "mixtral", "gemma2", "gpt2", "opt", "bloom", "gpt_oss"])
def test_honest_spans_pass(family: str, load_span: Callable[[str, int, int], SpanModel]) -> None:
    self_test(load_span(family, 1, 5))


def test_a_span_of_one_block_passes(load_span: Callable[[str, int, int], SpanModel]) -> None:
    self_test(load_span("llama", 1, 2))


def test_a_block_that_remembers_earlier_calls_is_refused(fresh_span: SpanModel) -> None:
    calls: list[int] = []

    def add_state(hidden: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return hidden + len(calls)

    patch_block(fresh_span, 1, add_state)
    with pytest.raises(SpanError, match=r"blocks \[1, 4\) of llama .* cannot be served"):
        self_test(fresh_span)


def test_a_block_that_looks_at_the_whole_step_is_refused_step_by_step(fresh_span: SpanModel) -> None:
    patch_block(fresh_span, 1, lambda hidden: hidden + hidden.mean(1, keepdim=True))
    with pytest.raises(SpanError, match="step by step"):
        self_test(fresh_span)


def test_a_block_that_needs_what_the_first_block_was_given_is_refused_in_two_ranges(fresh_span: SpanModel) -> None:
    def add_what_the_span_was_given(hidden: torch.Tensor) -> torch.Tensor:
        assert fresh_span.call is not None
        return hidden + fresh_span.call.hidden

    patch_block(fresh_span, 2, add_what_the_span_was_given)
    with pytest.raises(SpanError, match="in two ranges"):
        self_test(fresh_span)


def test_a_span_that_computes_nan_is_refused(fresh_span: SpanModel) -> None:
    patch_block(fresh_span, 0, lambda hidden: hidden * float("nan"))
    with pytest.raises(SpanError, match="relative difference nan"):
        self_test(fresh_span)
