"""The variable-length kernel is told where the rows lie: proved with a kernel on the CPU in the real one's place."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nectar_node import attention
from nectar_node.arena import Arena, Row
from nectar_node.packed import Batch, PackedRunner, Part
from nectar_node.span import SpanModel
from torch.nn.attention import varlen as real

from tests.node import varlen
from tests.node.sessions import START, STOP, Turn, cached, noise, run, turns_of

NOISE = 1e-3
LENGTH = 32
SIZES = ((9, 9, 1, 2), (1, 1, 18, 1), (21,), (5, 1, 1, 14))  # prompts, tokens and drafts beside each other


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The queries of each call of the kernel, which takes what it would on CUDA, in any number format."""
    queries: list[int] = []

    def count(query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        queries.append(len(query))
        return varlen.varlen_attn(query, *args, **kwargs)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(real, "varlen_attn", count)
    monkeypatch.setattr(attention, "_kernel_serves", lambda query, value: query.shape[-1] == value.shape[-1])
    return queries


def test_the_stand_in_takes_what_the_real_kernel_takes() -> None:
    ours, theirs = (inspect.signature(module.varlen_attn).parameters for module in (varlen, real))
    described = [[(p.name, p.kind, p.default) for p in parameters.values()] for parameters in (ours, theirs)]
    assert described[0] == described[1]


def test_rows_lie_where_their_stretches_are() -> None:
    rows = [Row(3, 5), Row(20, 0), Row(40, 7)]
    starts, stops = (0, 1, 5), (1, 5, 7)
    parts = [Part(row, start, stop, row.length) for row, start, stop in zip(rows, starts, stops, strict=True)]
    batch = Batch(Arena(1, 64, torch.device("cpu")), parts, expands=False)
    places = batch.places
    assert places.query_bounds.tolist() == [0, 1, 5, 7]
    assert places.key_bounds.tolist() == [3, 20, 40, 49]
    assert places.key_lengths.tolist() == [6, 4, 9]
    assert (places.longest_query, places.longest_key) == (4, 9)
    assert batch.positions.tolist() == [[5, 0, 1, 2, 3, 7, 8]]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "phi3", "gpt2", "opt"])
def test_sessions_through_the_kernel_give_what_each_gives_alone(
    family: str, load_span: Callable[..., SpanModel], calls: list[int]
) -> None:
    span = load_span(family, START, STOP)
    runner = PackedRunner(span, 256)
    gap, *kvs = [runner.reserve(START, STOP, LENGTH, (0,)) for _ in range(4)]
    runner.release(gap)  # what opens last lies first
    kvs.append(runner.reserve(START, STOP, LENGTH, (0,)))
    sessions = [turns_of(noise(1, 21, seed), *sizes) for seed, sizes in enumerate(SIZES)]
    outputs: list[list[torch.Tensor]] = [[] for _ in sessions]
    for at in range(4):
        ready = [number for number, turns in enumerate(sessions) if at < len(turns)]
        for number, output in zip(ready, run(runner, *((kvs[n], sessions[n][at]) for n in ready)), strict=True):
            outputs[number].append(output)
    for turns, output in zip(sessions, outputs, strict=True):
        torch.testing.assert_close(torch.cat(output, 1), torch.cat(cached(span, turns), 1), rtol=0, atol=NOISE)
    assert calls == [36] * span.blocks + [11] * span.blocks + [20] * span.blocks + [17] * span.blocks, "one per block"


def test_what_was_taken_back_or_left_by_others_is_not_read(
    load_span: Callable[..., SpanModel], calls: list[int]
) -> None:
    span = load_span("mistral", START, STOP)
    runner = PackedRunner(span, 64)
    turns = turns_of(noise(1, 12), 10, 1, 1)
    everything = runner.reserve(START, STOP, 64, (0,))
    run(runner, (everything, Turn(0, torch.full((1, 64, span.width), float("nan")))))
    runner.release(everything)
    kv = runner.reserve(START, STOP, LENGTH, (0,))
    run(runner, (kv, turns[0]))
    run(runner, (kv, Turn(10, torch.full((1, 5, span.width), float("nan")))))
    outputs = [run(runner, (kv, turn))[0] for turn in turns]
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(cached(span, turns), 1), rtol=0, atol=NOISE)


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "deepseek_v3"])
def test_what_the_kernel_does_not_know_never_reaches_it(
    family: str, load_span: Callable[..., SpanModel], calls: list[int]
) -> None:
    runner = PackedRunner(load_span(family, START, STOP), 64)
    run(runner, (runner.reserve(START, STOP, LENGTH, (0,)), Turn(0, noise(1, 9))))
    assert not calls


@pytest.mark.parametrize(
    ("changes", "serves"),
    [
        ({}, True),
        ({"dtype": torch.float16, "shape": (1, 4, 9, 256)}, True),
        ({"is_cuda": False}, False),
        ({"dtype": torch.float32}, False),
        ({"shape": (1, 4, 9, 512)}, False),
        ({"shape": (1, 4, 9, 20)}, False),
        ({"device": torch.device("cuda", 1)}, False),
    ],
)
def test_the_kernel_is_asked_for_where_it_serves(
    changes: dict[str, Any], serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: (8 - device.index, 0)
    )  # one Ampere, one not
    attention._is_ampere.cache_clear()
    known = {"is_cuda": True, "dtype": torch.bfloat16, "shape": (1, 4, 9, 64), "device": torch.device("cuda", 0)}
    query = value = SimpleNamespace(**known | changes)
    assert attention._kernel_serves(query, value) == serves
    assert not attention._kernel_serves(query, SimpleNamespace(shape=(1, 4, 9, 8)))
    attention._is_ampere.cache_clear()
