"""The engine runs work in order in one thread, and delivers every result or error in the loop."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import torch
from nectar_node.engine import Engine


class Bench:
    """Work is a number; 0 fails, and nothing runs until the gate is open."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.ran: list[int] = []
        self.threads: set[int] = set()
        self.delivered: asyncio.Queue[tuple[int, torch.Tensor | Exception]] = asyncio.Queue()
        self.engine: Engine[int] = Engine(self.execute, lambda work, result: self.delivered.put_nowait((work, result)))

    def execute(self, work: int) -> torch.Tensor:
        self.begun.set()
        self.gate.wait()
        self.ran.append(work)
        self.threads.add(threading.get_ident())
        if not work:
            raise ValueError("zero")
        return torch.tensor(work)

    async def results(self, count: int) -> list[tuple[int, torch.Tensor | Exception]]:
        return [await self.delivered.get() for _ in range(count)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.stop()
    bench.gate.set()


async def test_work_runs_in_the_order_of_its_arrival_in_one_thread_of_its_own(bench: Bench) -> None:
    bench.gate.set()
    for work in range(1, 101):
        bench.engine.submit(work)
    assert [work for work, _ in await bench.results(100)] == bench.ran == list(range(1, 101))
    assert len(bench.threads) == 1
    assert threading.get_ident() not in bench.threads


async def test_an_exception_is_delivered_and_what_follows_runs(bench: Bench) -> None:
    bench.gate.set()
    for work in (1, 0, 2):
        bench.engine.submit(work)
    (_, one), (_, zero), (_, two) = await bench.results(3)
    assert isinstance(zero, ValueError)
    assert (int(one), int(two)) == (1, 2)  # type: ignore[arg-type]  # tensors, or it raises


async def test_the_queue_and_the_running_work_can_be_seen(bench: Bench) -> None:
    assert (bench.engine.queued, bench.engine.busy_ms()) == (0, 0)
    for work in (1, 2, 3):
        bench.engine.submit(work)
    await asyncio.to_thread(bench.begun.wait)
    assert bench.engine.queued == 2
    assert bench.engine.busy_ms() >= 0
    bench.gate.set()
    await bench.results(3)
    assert bench.engine.queued == 0


async def test_stop_lets_the_running_work_end_and_drops_the_rest(bench: Bench) -> None:
    for work in (1, 2, 3):
        bench.engine.submit(work)
    await asyncio.to_thread(bench.begun.wait)
    bench.engine.stop()
    bench.gate.set()
    await bench.results(1)
    await asyncio.to_thread(bench.engine._thread.join)
    assert bench.ran == [1]
