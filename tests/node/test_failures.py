"""A failure in the engine stays with its flow."""

import asyncio
from collections.abc import Callable, Hashable

import pytest
import torch
from nectar_node.engine import MIN_PROMPT_ROWS, Engine
from nectar_node.runner import Runner
from nectar_node.scheduler import Work
from nectar_node.span import SpanModel
from nectar_node.speed import Speed
from nectar_swarm.history import InMemory

from tests.node.engines import BLOCKS, BROKEN, HANGS_S, KV, LATE, UNPREPARED, Bench, Doubling
from tests.node.sessions import START, STOP, WIDTH, noise, recomputed, turns_of


async def test_a_piece_that_fails_in_a_forward_fails_its_flow_only(bench: Bench) -> None:
    bench.submit("first")
    await bench.busy()
    for flow, value in (("good", 1.0), ("bad", BROKEN), ("fine", 2.0)):
        bench.submit(flow, value=value)
    bench.runner.allow()
    results = {work.flow: result for work, result in await bench.results(4)}
    assert isinstance(results["bad"], RuntimeError)
    assert (float(results["good"][0, 0, 0]), float(results["fine"][0, 0, 0])) == (2.0, 4.0)


@pytest.mark.parametrize("value", [LATE, UNPREPARED])
async def test_a_piece_that_fails_by_itself_costs_the_others_no_second_forward(bench: Bench, value: float) -> None:
    bench.submit("first")
    await bench.busy()
    for flow, given in (("good", 1.0), ("bad", value), ("fine", 2.0)):
        bench.submit(flow, value=given)
    bench.runner.allow()
    results = {work.flow: result for work, result in await bench.results(4)}
    assert isinstance(results["bad"], ValueError)
    assert (float(results["good"][0, 0, 0]), float(results["fine"][0, 0, 0])) == (2.0, 4.0)
    assert bench.engine.iterations == 2
    assert len(bench.runner.forwards) == 2


async def test_states_that_cannot_be_loaded_fail_their_flow_only(bench: Bench) -> None:
    class Lost(InMemory):
        def load(self) -> torch.Tensor:
            raise OSError("the disk is gone")

    bench.submit("first")
    await bench.busy()
    bench.submit("good")
    bench.engine.submit(Work("bad", KV(), 0, 1, 1, Lost(torch.zeros(1, 1, 2))))
    bench.runner.allow()
    results = {work.flow: result for work, result in await bench.results(3)}
    assert isinstance(results["bad"], OSError)
    assert isinstance(results["good"], torch.Tensor)


async def test_a_prompt_that_fails_half_way_no_longer_waits(bench: Bench) -> None:
    bench.submit("tokens")
    await bench.busy()
    hidden = torch.ones(1, 100, 2)
    hidden[:, MIN_PROMPT_ROWS + 1] = LATE
    prompt = Work("prompt", KV(), 0, 1, 100, InMemory(hidden))
    bench.engine.submit(prompt)
    for _ in range(4):
        bench.submit("tokens")
    bench.runner.allow()
    results = dict(await bench.results(6))
    assert isinstance(results[prompt], ValueError)
    assert bench.engine.queued == 0
    assert bench.runner.forwards == [[1], [1, MIN_PROMPT_ROWS], [1, MIN_PROMPT_ROWS], [1], [1]]


async def test_a_result_that_cannot_be_handed_over_keeps_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    delivered, freed, runner = asyncio.Queue[Hashable](), asyncio.Event(), Doubling()

    def deliver(work: Work, result: torch.Tensor | Exception) -> None:
        if work.flow == "bad":
            raise ValueError("a secret")
        delivered.put_nowait(work.flow)

    engine = Engine(runner, Speed(), BLOCKS, deliver)  # type: ignore[arg-type]  # as much of a runner as it needs
    for flow in ("bad", "good", "gone"):
        engine.submit(Work(flow, KV(), 0, 1, 1, InMemory(torch.ones(1, 1, 2))))
    await asyncio.to_thread(runner.begun.acquire)
    engine.end("gone", freed.set)
    runner.allow()
    async with asyncio.timeout(HANGS_S):
        assert await delivered.get() == "good"
        await freed.wait()
    assert "could not be handed over" in caplog.text
    engine.stop()
    await engine.finished.wait()


async def test_only_whole_spans_that_were_computed_are_measured(bench: Bench) -> None:
    bench.runner.allow()
    bench.submit("part", kv=KV(0, 2))
    bench.submit("bad", value=UNPREPARED)
    await bench.results(2)
    assert bench.speed == Speed()
    bench.submit("whole")
    await bench.results(1)
    assert bench.speed.iteration_s > 0


@pytest.mark.parametrize("family", ["llama", "mistral", "bloom", "qwen3_next"])
async def test_sessions_through_the_engine_get_what_each_gets_alone_and_a_broken_one_nothing(
    family: str, choose: Callable[..., Runner], load_span: Callable[..., SpanModel]
) -> None:
    runner, span = choose(family), load_span(family, START, STOP)
    bench = Bench(runner)
    sessions = [turns_of(noise(2, 18, seed), prompt, *[1] * (18 - prompt)) for seed, prompt in enumerate((14, 1, 9))]
    kvs = [runner.reserve(START, STOP, 32, (0, 3)) for _ in (*sessions, "broken")]
    bench.engine.submit(Work(3, kvs[3], 0, 2, 1, InMemory(torch.zeros(2, 1, WIDTH - 1))))
    for flow, turns in enumerate(sessions):
        for turn in turns:  # all ahead: the engine keeps them in order
            tokens = turn.hidden.shape[1]
            bench.engine.submit(Work(flow, kvs[flow], turn.position, 2, tokens, InMemory(turn.hidden)))
    results = await bench.results(1 + sum(map(len, sessions)))
    [broken] = [result for work, result in results if work.flow == 3]
    assert isinstance(broken, Exception)
    for flow, turns in enumerate(sessions):
        outputs = [result for work, result in results if work.flow == flow]
        expected = recomputed(span, turns, (0, 3))
        torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(expected, 1), rtol=0, atol=1e-3)
    for flow, kv in enumerate(kvs):
        bench.engine.end(flow, lambda kv=kv: runner.release(kv))  # type: ignore[misc]  # bound at once
    bench.engine.stop()
    await bench.engine.finished.wait()
    assert runner.kv_free == runner.kv_total
