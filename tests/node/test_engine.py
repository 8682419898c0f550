"""The engine: one forward for many, a flow's works in order, and an end that waits for what runs."""

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from nectar_node.attendance import Attendance
from nectar_node.engine import MIN_PROMPT_ROWS

from tests.node.engines import BROKEN, HANGS_S, KV, LATE, UNPREPARED, Bench, Doubling


async def test_a_flows_works_run_in_their_order_and_one_in_an_iteration(bench: Bench) -> None:
    bench.runner.allow()
    works = {flow: [bench.submit(flow, value=number) for number in range(20)] for flow in "abc"}
    results = await bench.results(60)
    for flow, own in works.items():
        assert [work for work, _ in results if work.flow == flow] == own
    assert [float(result[0, 0, 0]) for work, result in results if work.flow == "a"] == [2.0 * n for n in range(20)]
    assert all(len(pieces) <= 3 for pieces in bench.runner.forwards)
    assert len(bench.runner.threads) == 1
    assert threading.get_ident() not in bench.runner.threads


async def test_works_that_wait_together_are_one_forward(bench: Bench) -> None:
    bench.submit("first")
    await bench.busy()
    for flow in range(5):
        bench.submit(flow, tokens=1 + flow)
    bench.runner.allow()
    await bench.results(6)
    assert bench.runner.forwards == [[1], [1, 2, 3, 4, 5]]
    assert bench.engine.iterations == 2


async def test_works_of_other_blocks_are_a_forward_of_their_own(bench: Bench) -> None:
    bench.submit("first")
    await bench.busy()
    for flow, kv in enumerate((KV(0, 2), KV(2, 4), KV(0, 2), KV())):
        bench.submit(flow, kv=kv)
    bench.runner.allow()
    await bench.results(5)
    assert sorted(map(len, bench.runner.forwards)) == [1, 1, 1, 2]
    assert bench.engine.iterations == 2


async def test_a_prompt_alone_runs_whole(bench: Bench) -> None:
    bench.runner.allow()
    bench.submit("prompt", tokens=3000)
    await bench.results(1)
    assert bench.runner.forwards == [[3000]]


async def test_a_prompt_beside_tokens_runs_in_chunks_and_is_delivered_whole(bench: Bench) -> None:
    bench.submit("tokens")
    await bench.busy()
    prompt = bench.submit("prompt", tokens=4 * MIN_PROMPT_ROWS + 1, value=3.0)
    tokens = [bench.submit("tokens") for _ in range(5)]
    bench.runner.allow()
    results = dict(await bench.results(7))
    assert results[prompt].shape == (1, 4 * MIN_PROMPT_ROWS + 1, 2)
    assert (results[prompt] == 6.0).all()
    assert bench.runner.forwards == [[1]] + [[1, MIN_PROMPT_ROWS]] * 4 + [[1, 1]]
    assert list(results).index(prompt) > list(results).index(tokens[3])


async def test_prompts_that_wait_for_a_long_iteration_are_still_taken_in_turns(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nectar_node.attendance.RECENT_S", 0.0)  # as if all had come long ago
    bench.submit("first")
    await bench.busy()
    for flow in ("one", "other"):
        bench.submit(flow, tokens=600)
    bench.runner.allow()
    await bench.results(3)
    assert bench.runner.forwards == [[1], [512], [88, 424], [176]]


# A replay, and the step behind it


async def test_a_replay_and_the_step_that_goes_on_from_it_are_one_piece(bench: Bench) -> None:
    bench.submit("first", 9)
    await bench.busy()
    kv = KV()
    replay, step = bench.submit("one", 500, 2.0, kv, replay=True), bench.submit("one", 2, 3.0, kv, 500)
    after = bench.submit("one", 1, 4.0, kv, 502)
    bench.runner.allow()
    results = await bench.results(4)
    assert bench.runner.forwards == [[9], [502], [1]]
    assert [work for work, _ in results[1:]] == [replay, step, after]
    outputs = [result for _, result in results[1:]]
    assert [output.shape for output in outputs] == [(1, 500, 2), (1, 2, 2), (1, 1, 2)]
    assert [output.unique().tolist() for output in outputs] == [[4.0], [6.0], [8.0]]
    assert [output.untyped_storage().nbytes() for output in outputs] == [output.nbytes for output in outputs]


async def test_an_idle_thread_waits_a_little_for_the_step_behind_a_replay(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.runner.allow()
    kv = KV()
    monkeypatch.setattr("nectar_node.engine.FOLLOW_S", 2 * HANGS_S)
    bench.submit("one", 9, kv=kv, replay=True)
    await asyncio.sleep(0.01)  # for the thread to begin, if it did
    bench.submit("one", 1, kv=kv, position=9)
    await bench.results(2)
    monkeypatch.setattr("nectar_node.engine.FOLLOW_S", 0.001)
    bench.submit("one", 9, kv=kv, replay=True)
    await bench.results(1)
    assert bench.runner.forwards == [[10], [9]]


async def test_a_step_runs_with_the_last_chunk_of_the_replay_before_it(bench: Bench) -> None:
    bench.submit("tokens")
    await bench.busy()
    kv = KV()
    replay = bench.submit("one", 2 * MIN_PROMPT_ROWS, 2.0, kv, replay=True)
    step = bench.submit("one", 1, 3.0, kv, 2 * MIN_PROMPT_ROWS)
    bench.runner.allow()
    results = dict(await bench.results(3))
    assert bench.runner.forwards == [[1], [MIN_PROMPT_ROWS], [MIN_PROMPT_ROWS + 1]]
    assert results[replay].shape == (1, 2 * MIN_PROMPT_ROWS, 2)
    assert results[step].tolist() == [[[6.0, 6.0]]]


@pytest.mark.parametrize(
    "behind",
    [{"position": 3}, {"position": 5}, {"position": 4, "reorder": (0,)}, {"position": 4, "tokens": 9}],
    ids=["rollback", "gap", "reorder", "long"],
)
async def test_what_does_not_go_on_from_there_is_a_piece_of_its_own(bench: Bench, behind: dict[str, Any]) -> None:
    bench.submit("first")
    await bench.busy()
    kv = KV()
    bench.submit("one", 4, kv=kv, replay=True)
    bench.submit("one", kv=kv, **behind)
    bench.submit("other", 4, replay=True)
    bench.submit("other", position=4)  # with another KV
    bench.runner.allow()
    await bench.results(5)
    assert bench.runner.forwards[1] == [4, 4]


@pytest.mark.parametrize("value", [BROKEN, LATE, UNPREPARED])
async def test_a_piece_of_two_that_fails_costs_both_and_nobody_else(bench: Bench, value: float) -> None:
    bench.submit("first")
    await bench.busy()
    kv = KV()
    bench.submit("one", 4, value, kv, replay=True)
    bench.submit("one", 1, 1.0, kv, 4)
    bench.submit("other", 4)
    bench.submit("other", 1)
    bench.runner.allow()
    results = (await bench.results(5))[1:]
    assert all(isinstance(result, Exception) == (work.flow == "one") for work, result in results)
    bench.submit("one")
    await bench.results(1)


# Ends


async def test_an_end_waits_for_the_running_iteration_and_drops_what_is_behind_it(bench: Bench) -> None:
    order: list[str] = []
    bench.submit("a")
    await bench.busy()
    bench.submit("a")
    bench.submit("b")
    bench.engine.end("a", lambda: order.append("a"))
    bench.engine.end("b", lambda: order.append("b"))
    assert order == ["b"], "b does not run, a does"
    assert bench.engine.queued == 0
    bench.runner.allow()
    [(work, _)] = await bench.results(1)
    bench.submit("c")
    await bench.results(1)
    assert work.flow == "a"
    assert order == ["b", "a"]
    assert bench.runner.forwards == [[1], [1]]


async def test_a_prompt_ends_between_its_chunks(bench: Bench) -> None:
    freed = asyncio.Event()
    bench.submit("tokens")
    await bench.busy()
    bench.submit("prompt", tokens=100)
    bench.submit("tokens")
    bench.runner.allow(1)
    await bench.busy()
    bench.engine.end("prompt", freed.set)
    assert bench.engine.queued == 0
    assert not freed.is_set()
    bench.runner.allow()
    async with asyncio.timeout(HANGS_S):
        await freed.wait()
    bench.submit("tokens")
    assert [work.flow for work, _ in await bench.results(3)] == ["tokens"] * 3
    assert bench.runner.forwards == [[1], [1, MIN_PROMPT_ROWS], [1]]


async def test_who_leaves_while_others_are_waited_for_does_not_stop_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.runner.allow()
    left = threading.Event()

    def leave(self: Attendance, now_s: float, here: int, iteration_s: Callable[[int], float], **_: Any) -> float:
        if not left.is_set():
            left.set()
            bench.engine.end("a", lambda: None)
        return -math.inf

    monkeypatch.setattr(Attendance, "wait_until", leave)
    bench.submit("a")
    await asyncio.to_thread(left.wait)
    bench.submit("b")
    assert [work.flow for work, _ in await bench.results(1)] == ["b"]


async def test_an_iteration_waits_for_those_who_are_worth_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def wait_for_both(
        self: Attendance, now_s: float, here: int, iteration_s: Callable[[int], float], **_: Any
    ) -> float:
        asked.set()
        return now_s + HANGS_S if bench.engine.queued < 2 else -math.inf

    monkeypatch.setattr(Attendance, "wait_until", wait_for_both)
    bench.runner.allow()
    bench.submit("a")
    await asyncio.to_thread(asked.wait)
    bench.submit("b")
    await bench.results(2)
    assert bench.runner.forwards == [[1, 1]]


async def test_stop_lets_the_running_iteration_end_and_drops_the_rest(bench: Bench) -> None:
    first = bench.submit("a")
    await bench.busy()
    bench.submit("a")
    bench.submit("b")
    bench.engine.stop()
    assert not bench.engine.finished.is_set()
    bench.runner.allow()
    async with asyncio.timeout(HANGS_S):
        await bench.engine.finished.wait()
    assert [work for work, _ in await bench.results(1)] == [first]
    assert bench.runner.forwards == [[1]]


async def test_stop_does_not_wait_for_those_who_are_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def wait(self: Attendance, now_s: float, here: int, iteration_s: Callable[[int], float], **_: Any) -> float:
        asked.set()
        return now_s + 10 * HANGS_S

    monkeypatch.setattr(Attendance, "wait_until", wait)
    bench.submit("a")
    await asyncio.to_thread(asked.wait)
    bench.engine.stop()
    async with asyncio.timeout(HANGS_S):
        await bench.engine.finished.wait()
    assert not bench.runner.forwards


def test_a_loop_that_ends_first_does_no_harm() -> None:
    runner, before = Doubling(), set(threading.enumerate())

    async def leave() -> threading.Thread:
        bench = Bench(runner)
        [compute] = set(threading.enumerate()) - before
        bench.submit("a")
        await bench.busy()
        bench.engine.stop()
        return compute

    compute = asyncio.run(leave())
    runner.allow()
    compute.join()
    assert runner.forwards == [[1]]


async def test_the_queue_and_the_running_work_can_be_seen(bench: Bench) -> None:
    assert (bench.engine.queued, bench.engine.busy_ms(), bench.engine.wait_us) == (0, 0, 0)
    bench.submit("a", tokens=4)
    await bench.busy()
    bench.submit("b", tokens=3)
    bench.submit("a", tokens=100)  # behind its flow's first
    assert bench.engine.queued == 3
    assert bench.engine.busy_ms() >= 0
    bench.runner.allow()
    await bench.results(3)
    assert (bench.engine.queued, bench.engine.wait_us) == (0, 0)
