"""Shares of a real engine's rows among sessions that always want more than it can compute."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nectar_node.engine import Engine
from nectar_node.fairqueue import FairQueue
from nectar_node.runner import Piece
from nectar_node.scheduler import Work
from nectar_node.speed import Speed
from nectar_swarm.history import InMemory

from benchmarks.economy.queueing import Blocks, Customer, crowd

WEIGHTS = (1, 2, 4, 8)
SESSIONS = 30  # of each weight, and of those that do not pay
BUDGET = 16  # rows of an iteration; nine times as many always want one
FORWARD_S = 0.0005  # in which those who were served before come back
STEP = InMemory(torch.ones(1, 1, 2))


@dataclass(frozen=True)
class Shares:
    """Of all rows: by weight, and what was free."""

    by_weight: dict[int, float]
    free: float

    @property
    def error(self) -> float:
        """The largest deviation of a weight's share from what is due to it among those who pay, relative to that."""
        paid = sum(self.by_weight.values())
        return max(abs(share / paid * sum(WEIGHTS) / weight - 1) for weight, share in self.by_weight.items())


class Copying:
    """A runner that takes its time and computes nothing, and has no KV to give."""

    kv_total = kv_free = 0

    def prepare(self, piece: Piece) -> None: ...

    def run(self, pieces: Sequence[Piece]) -> list[torch.Tensor | Exception]:
        time.sleep(FORWARD_S)
        return [piece.hidden.clone() for piece in pieces]

    def reserve(self, start: int, stop: int, length: int, pads: Sequence[int]) -> None:
        return None

    def release(self, kv: object) -> None: ...


async def share(rows: int) -> Shares:
    """Until so many rows have been computed; the first tenth is not counted."""
    done, got, counted = asyncio.Event(), Counter[int](), 0

    def deliver(work: Work, output: torch.Tensor | Exception) -> None:
        nonlocal counted
        counted += 1
        if counted > rows // 10:
            got[work.weight] += 1
        if counted < rows:
            assert isinstance(work.flow, Customer)
            engine.submit(_next(work.flow))
        else:
            done.set()

    engine = Engine(Copying(), Speed(), Blocks().stop, deliver, FairQueue(max_rows=BUDGET))
    for weight in (0, *WEIGHTS):
        for customer in crowd("session", SESSIONS, weight):
            engine.submit(_next(customer))
    await done.wait()
    engine.stop()
    await engine.join()
    total = got.total()
    return Shares({weight: got[weight] / total for weight in WEIGHTS}, got[0] / total)


def _next(customer: Customer) -> Work:
    return Work(customer, Blocks(), 0, 1, 1, STEP, weight=customer.weight)
