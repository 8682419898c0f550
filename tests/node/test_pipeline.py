"""Several engines as one: works go through all stages in order, KV is reserved in all or none, an end frees all."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.packed import PackedRunner
from nectar_node.pipeline import Pipeline, start_computing
from nectar_node.runner import Runner
from nectar_node.scheduler import Work
from nectar_node.span import SpanModel
from nectar_node.speed import Speed, SpeedOfAll
from nectar_node.stage import Loaded, Stage
from nectar_swarm.history import InMemory

from tests.node.engines import BROKEN, HANGS_S, Doubling
from tests.node.sessions import START, STOP, cached, noise, turns_of

BORDERS = (0, 3, 4, 6)
KV = 64


class Store(Doubling):
    """A runner that doubles, and keeps books of its KV."""

    kv_total = KV

    def __init__(self) -> None:
        super().__init__()
        self.held: list[range] = []

    @property
    def kv_free(self) -> int:
        return KV - sum(len(held) for held in self.held)

    def reserve(self, start: int, stop: int, length: int, pads: Any) -> Any:
        if length > self.kv_free:
            return None
        self.held.append(range(length))
        return SimpleNamespace(start=start, stop=stop, held=self.held[-1])

    def release(self, kv: Any) -> None:
        self.held.remove(kv.held)


class Bench:
    """A pipeline of three stages, and what it delivers."""

    def __init__(self, runners: list[Any], spans: list[Any]) -> None:
        self.runners, self.delivered = runners, asyncio.Queue[tuple[Work, Any]]()
        stages = [Stage(span, runner, Speed()) for span, runner in zip(spans, runners, strict=True)]
        self.pipeline = Pipeline(stages, lambda work, result: self.delivered.put_nowait((work, result)))

    def submit(self, flow: str, kv: Any, hidden: torch.Tensor, position: int = 0) -> Work:
        work = Work(flow, kv, position, 1, hidden.shape[1], InMemory(hidden))
        self.pipeline.submit(work)
        return work

    async def result(self) -> tuple[Work, Any]:
        async with asyncio.timeout(HANGS_S):
            return await self.delivered.get()


def spans() -> list[Any]:
    return [SimpleNamespace(start=start, stop=stop, blocks=stop - start) for start, stop in pairwise(BORDERS)]


@pytest.fixture
async def bench() -> Any:
    bench = Bench([Store() for _ in range(3)], spans())
    yield bench
    for runner in bench.runners:
        runner.allow()
    bench.pipeline.stop()
    await bench.pipeline.join()


@pytest.mark.parametrize(("start", "stop", "times"), [(0, 6, 8), (0, 3, 2), (1, 4, 4), (3, 4, 2), (3, 6, 4), (5, 6, 2)])
async def test_a_work_goes_through_the_stages_of_its_blocks(bench: Bench, start: int, stop: int, times: int) -> None:
    kv = bench.pipeline.reserve(start, stop, 8, (0,))
    assert kv is not None
    for runner in bench.runners:
        runner.allow()
    work = bench.submit("a", kv, torch.ones(1, 2, 4))
    assert (await bench.result()) == (work, pytest.approx(times * torch.ones(1, 2, 4)))
    parts = [(part.start, part.stop) for part in kv.parts.values()]
    assert (parts[0][0], parts[-1][1]) == (start, stop)
    assert all(before[1] == after[0] for before, after in pairwise(parts))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 40)), max_size=8))
def test_kv_is_reserved_in_all_stages_or_in_none(wanted: list[tuple[int, int, int]]) -> None:
    runners = [Store() for _ in range(3)]
    pipeline = Pipeline.__new__(Pipeline)
    pipeline._stages = [Stage(span, runner, Speed()) for span, runner in zip(spans(), runners, strict=True)]  # type: ignore[arg-type]
    held = []
    for start, blocks, length in wanted:
        stop = min(start + blocks, 6)
        used = [span.start < stop and start < span.stop for span in spans()]
        fits = all(runner.kv_free >= length for runner, needed in zip(runners, used, strict=True) if needed)
        before = [runner.kv_free for runner in runners]
        kv = pipeline.reserve(start, stop, length, (0,))
        assert (kv is not None) == fits
        taken = [earlier - runner.kv_free for earlier, runner in zip(before, runners, strict=True)]
        assert taken == [length * needed * fits for needed in used]
        assert pipeline.kv_free == min(runner.kv_free for runner in runners)
        held += [kv] if kv else []
    for kv in held:
        pipeline.release(kv)
    assert pipeline.kv_free == pipeline.kv_total == KV


async def test_a_works_weight_is_that_of_its_part_in_every_stage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for engine in bench.pipeline._engines:
        submit = engine.submit

        def noting(own: Work, submit: Callable[[Work], None] = submit) -> None:
            weights.append((own.weight, own.replay, own.reorder))
            submit(own)

        monkeypatch.setattr(engine, "submit", noting)
    for runner in bench.runners:
        runner.allow()
    kv = bench.pipeline.reserve(0, 6, 8, (0,))
    bench.pipeline.submit(Work("a", kv, 0, 1, 2, InMemory(torch.ones(1, 2, 4)), (0,), replay=True, weight=4))
    await bench.result()
    assert weights == [(4, True, (0,))] * 3


async def test_stages_compute_different_sessions_at_the_same_time(bench: Bench) -> None:
    first, second, third = bench.runners
    bench.submit("a", bench.pipeline.reserve(0, 6, 8, (0,)), torch.ones(1, 1, 4))
    first.allow(1)
    await asyncio.to_thread(second.begun.acquire)  # a is in the second stage, and stays there
    bench.submit("b", bench.pipeline.reserve(0, 3, 8, (0,)), torch.ones(1, 1, 4))
    first.allow(1)
    assert (await bench.result())[0].flow == "b"
    assert bench.pipeline.busy_ms() >= 0
    second.allow()
    third.allow()
    assert (await bench.result())[0].flow == "a"


async def test_what_fails_in_a_stage_goes_no_further_and_is_told(bench: Bench) -> None:
    for runner in bench.runners:
        runner.allow()
    bench.submit("a", bench.pipeline.reserve(0, 6, 8, (0,)), torch.full((1, 1, 4), BROKEN / 2))
    work, result = await bench.result()
    assert isinstance(result, RuntimeError)
    assert work.flow == "a"
    assert bench.runners[1].forwards == bench.runners[2].forwards == []


@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_an_end_waits_for_the_stage_that_runs_and_nothing_is_delivered_after_it(bench: Bench, stage: int) -> None:
    kv = bench.pipeline.reserve(0, 6, 8, (0,))
    bench.submit("a", kv, torch.ones(1, 1, 4))
    for runner in bench.runners[:stage]:
        runner.allow()
    await asyncio.to_thread(bench.runners[stage].begun.acquire)
    ended = asyncio.Event()
    bench.pipeline.end("a", ended.set)
    assert not ended.is_set()
    for runner in bench.runners:
        runner.allow()
    async with asyncio.timeout(HANGS_S):
        await ended.wait()
    other = bench.submit("b", bench.pipeline.reserve(0, 6, 8, (0,)), torch.ones(1, 1, 4))
    assert (await bench.result())[0] is other
    assert bench.delivered.empty()
    assert [len(runner.forwards) for runner in bench.runners[stage + 1 :]] == [1] * (2 - stage)


async def test_an_end_of_what_does_not_run_is_at_once(bench: Bench) -> None:
    ended = asyncio.Event()
    bench.pipeline.end("nobody", ended.set)
    assert ended.is_set()


async def test_two_stages_give_what_one_span_gives(load_span: Callable[..., SpanModel]) -> None:
    whole, middle = load_span("llama", START, STOP), START + 2
    parts = [load_span("llama", START, middle), load_span("llama", middle, STOP)]
    bench = Bench([PackedRunner(part, KV) for part in parts], parts)
    turns = turns_of(noise(1, 12), 7, 1, 1, 3)
    kv = bench.pipeline.reserve(START, STOP, 16, (0,))
    for turn, want in zip(turns, cached(whole, turns), strict=True):
        bench.submit("a", kv, turn.hidden, turn.position)
        _, result = await bench.result()
        assert torch.equal(result, want)
    bench.pipeline.stop()
    await bench.pipeline.join()


async def test_one_stage_is_computed_by_an_engine_alone(load_span: Callable[..., SpanModel]) -> None:
    span = load_span("llama", START, STOP)
    runner: Runner = PackedRunner(span, KV)
    engine, store = start_computing(Loaded((Stage(span, runner, Speed()),)), lambda work, result: None)
    assert not isinstance(engine, Pipeline)
    assert store is runner
    engine.stop()
    await engine.join()


def test_a_token_takes_as_long_as_all_stages_together() -> None:
    speed = SpeedOfAll((Speed(decode_s=0.002, prefill_s=0.001), Speed(decode_s=0.003)))
    assert (speed.decode_us, speed.prefill_us) == (5000, 1000)
