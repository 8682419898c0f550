"""Sessions that a scheduler on a bench has to divide iterations among."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from nectar_node.fairqueue import FairQueue
from nectar_node.scheduler import MAX_ROWS, Grant, Work
from nectar_swarm.history import InMemory

WEIGHTS = (1, 2, 4, 8)
NOTHING = InMemory(torch.zeros(0))


@dataclass(frozen=True)
class Blocks:
    """In a KV's place."""

    start: int
    stop: int


def work(flow: Hashable, weight: int, tokens: int = 1, batch: int = 1, blocks: int = 4) -> Work:
    return Work(flow, Blocks(0, blocks), 0, batch, tokens, NOTHING, weight=weight)


class Crowd:
    """Sessions (weight, number) that always want their next step, and have it `late` iterations after their last."""

    def __init__(self, queue: FairQueue, step: Callable[[Hashable, int], Work], late: int = 0) -> None:
        self.queue, self.step = queue, step
        self.away: list[list[tuple[int, int]]] = [[] for _ in range(late)]
        self.got: Counter[tuple[int, int]] = Counter()
        self.iterations: list[list[Grant]] = []

    def join(self, weight: int, count: int) -> None:
        for number in range(count):
            self.queue.add(self.step((weight, number), weight))

    def run(self, iterations: int, prompt_rows: int | None = MAX_ROWS, spare_rows: int = MAX_ROWS) -> None:
        for _ in range(iterations):
            grants = self.queue.take(prompt_rows, spare_rows)
            self.iterations.append(grants)
            for grant in grants:
                self.got[grant.work.flow] += grant.rows
                grant.work.done += grant.tokens
            self.away.append([grant.work.flow for grant in grants if not grant.work.left])
            for flow in self.away.pop(0):
                self.queue.add(self.step(flow, flow[0]))

    def shares(self) -> dict[int, float]:
        return {weight: self.rows(weight) / self.got.total() for weight in (0, *WEIGHTS)}

    def rows(self, weight: int) -> int:
        return sum(rows for (of, _), rows in self.got.items() if of == weight)


def token(flow: Hashable, weight: int) -> Work:
    return work(flow, weight)


def prompt(flow: Hashable, weight: int) -> Work:
    return work(flow, weight, tokens=1000)
