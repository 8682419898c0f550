"""The engine on CUDA in bfloat16: the kernel over the arena, sessions together and alone, and what 64 of them cost."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from nectar_node import attention
from nectar_node.arena import Arena, Row
from nectar_node.packed import Batch, PackedRunner, Part
from nectar_node.selftest import TOLERANCE
from nectar_node.span import SpanModel
from nectar_node.trial import choose_runner
from nectar_swarm.anatomy import examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.folder import LocalFolder

from benchmarks.models import make_llama
from tests.node.sessions import START, STOP, Turn, cached, noise, run, turns_of

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
BF16 = torch.bfloat16
POSITIONS, PROMPT, STEPS = 16_384, 64, 32
LoadSpan = Callable[..., SpanModel]


def error_of(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).float().norm() / expected.float().norm()).item()


@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (8, 1)], ids=["one to one", "grouped", "one for all"])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("window", [None, 24])
@torch.inference_mode()
def test_the_kernel_over_the_arena_gives_what_each_row_gives_by_itself(
    heads: tuple[int, int], size: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    query_heads, kv_heads = heads
    arena = Arena(1, 512, torch.device(DEVICE))
    nan = torch.full((512, kv_heads, size), float("nan"), dtype=BF16, device=DEVICE)
    arena.write(0, torch.arange(512, device=DEVICE), nan, nan)  # whatever is read beside the rows shows
    rows = [Row(7), Row(100), Row(200, 40), Row(300, 95), Row(420)]
    tokens, parts, at = (1, 20, 1, 5, 64), [], 0
    for row, count in zip(rows, tokens, strict=True):
        slots = torch.arange(row.offset, row.offset + row.length, device=DEVICE)
        past = torch.randn(2, row.length, kv_heads, size, dtype=BF16, device=DEVICE)
        arena.write(0, slots, past[0], past[1])
        parts.append(Part(row, at, at + count, row.length))
        at += count
    batch = Batch(arena, parts, expands=False)
    key, value = torch.randn(2, 1, kv_heads, at, size, dtype=BF16, device=DEVICE)
    query = torch.randn(1, query_heads, at, size, dtype=BF16, device=DEVICE)
    key, value = batch.update(key, value, 0)
    module = SimpleNamespace(layer_idx=0, config=SimpleNamespace())
    assert attention._kernel_serves(query, value)
    outputs = []
    for serves in (True, False):
        monkeypatch.setattr(attention, "_kernel_serves", lambda query, value, serves=serves: serves)
        out, _ = attention.packed_attention(
            module, query, key, value, None, nectar_batch=batch, scaling=size**-0.5, sliding_window=window
        )
        outputs.append(out)
    assert outputs[0].shape == outputs[1].shape == (1, at, query_heads, size)
    assert outputs[0].isfinite().all()
    assert error_of(*outputs) < 0.01


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "phi3", "gpt2", "gemma2"])
def test_sessions_together_give_what_each_gives_with_transformers_own_cache(family: str, load_span: LoadSpan) -> None:
    span = load_span(family, START, STOP, BF16, DEVICE)
    runner = choose_runner(span, 1024)
    assert type(runner) is PackedRunner
    sessions = [turns_of(noise(1, 30, seed, BF16), *sizes) for seed, sizes in enumerate(((23, *[1] * 7), (9, 1, 20)))]
    kvs = [runner.reserve(START, STOP, 32, (0,)) for _ in sessions]
    outputs: list[list[torch.Tensor]] = [[] for _ in sessions]
    for at in range(8):
        ready = [number for number, turns in enumerate(sessions) if at < len(turns)]
        for number, output in zip(ready, run(runner, *((kvs[n], sessions[n][at]) for n in ready)), strict=True):
            outputs[number].append(output)
    for turns, output in zip(sessions, outputs, strict=True):
        assert error_of(torch.cat(output, 1), torch.cat(cached(span, turns), 1)) < TOLERANCE[span.profile]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SpanModel:
    """All blocks of a Llama of 200 million parameters."""
    source = LocalFolder(make_llama("mid", tmp_path_factory.mktemp("models")))
    anatomy = examine(load_config(source))
    return SpanModel(Checkpoint(source), anatomy, 0, anatomy.blocks, BF16, torch.device(DEVICE))


def hidden_states(span: SpanModel, tokens: int) -> torch.Tensor:
    return torch.randn(1, tokens, span.width, generator=torch.Generator().manual_seed(tokens)).to(BF16)


def local_s(span: SpanModel) -> float:
    """Seconds for a token of one session with Transformers' own cache."""
    steps = turns_of(hidden_states(span, PROMPT + 2 * STEPS), PROMPT, *[1] * 2 * STEPS)
    cached(span, steps[: STEPS + 1], span.start, span.stop)  # a warm-up
    started_s = time.perf_counter()
    cached(span, steps[:1], span.start, span.stop)
    prompt_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    cached(span, steps, span.start, span.stop)
    return (time.perf_counter() - started_s - prompt_s) / (2 * STEPS)


@pytest.mark.parametrize("sessions", [1, 64])
def test_decoding_is_one_forward_for_all_and_its_speed_is_reported(
    large: SpanModel, sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, forwards, forward = PackedRunner(large, POSITIONS), [0], large.forward

    def counted(*args: object, **kwargs: object) -> torch.Tensor:
        forwards[0] += 1
        return forward(*args, **kwargs)  # type: ignore[arg-type]  # as they come

    alone_s = local_s(large)
    monkeypatch.setattr(large, "forward", counted)
    kvs = [runner.reserve(large.start, large.stop, PROMPT + 2 * STEPS, (0,)) for _ in range(sessions)]
    token = hidden_states(large, 1)
    run(runner, *((kv, Turn(0, hidden_states(large, PROMPT))) for kv in kvs))
    outputs = 0
    for step in range(2 * STEPS):
        if step == STEPS:  # what came before was a warm-up
            started_s = time.perf_counter()
        outputs += len(run(runner, *((kv, Turn(PROMPT + step, token)) for kv in kvs)))
    together_s = (time.perf_counter() - started_s) / (STEPS * sessions)
    assert outputs == 2 * STEPS * sessions
    assert forwards[0] == 1 + 2 * STEPS
    print(
        f"\n{sessions} sessions: {1 / together_s:.0f} tokens/s, {alone_s / together_s:.2f}x local ({1 / alone_s:.0f})"
    )
