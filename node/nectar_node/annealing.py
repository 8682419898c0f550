"""A search for better places for all nodes at once: take a few off, put each where it helps most, again and again.

It is the same for the same layout, so that nodes agree on the plan. (Different builds of Python may round differently
and disagree; that costs time, never a block.)
"""

import math
import random
from collections.abc import Callable
from itertools import accumulate

from nectar_protocol.identity import PublicKey

from nectar_node.layout import Layout

STEPS, MAX_TAKEN = 800, 4
WARMTH = 0.1
SHARPNESS = 16  # of the power mean that stands for the bottleneck, so that a step towards a better one shows
LITTLE = 1e-3  # of the mean throughput: what a block without nodes counts as
NONE = 1e-9  # of the mean throughput: what is left by rounding

Starts = list[int]


class Annealing:
    """`move_cost` is what each move must bring, as a share of the bottleneck."""

    def __init__(self, layout: Layout, move_cost: float) -> None:
        self.seats, self.blocks, self.move_cost = list(layout.seats.values()), layout.blocks, move_cost
        self.movable = [at for at, s in enumerate(self.seats) if s.movable and s.length < layout.blocks]
        mean = sum(layout.throughput) / layout.blocks
        self.rates = [seat.rate / mean for seat in self.seats]
        self.home = [seat.start for seat in self.seats]
        self.random = random.Random(0)

    def run(self, feasible: Callable[[dict[PublicKey, int]], bool]) -> dict[PublicKey, int]:
        """The best plan met that is `feasible`; empty if none is better than to stay."""
        starts, total = self.home, self._throughput()
        cost, best, best_value = self._cost(starts, total), self.home, self._value(self.home, total)
        for step in range(STEPS if self.movable else 0):
            new_starts, new_total = self._change(starts, total)
            new_cost = self._cost(new_starts, new_total)
            warmth = WARMTH * (1 - step / STEPS)
            if new_cost > cost and self.random.random() >= math.exp((cost - new_cost) / warmth):
                continue
            starts, total, cost = new_starts, new_total, new_cost
            value = self._value(starts, total)
            if value > best_value and feasible(self._plan(starts)):
                best, best_value = starts, value
        return self._plan(best)

    def _plan(self, starts: Starts) -> dict[PublicKey, int]:
        seats = zip(self.seats, starts, strict=True)
        return {seat.node: start for seat, start in seats if start != seat.start}

    def _throughput(self) -> list[float]:
        total = [0.0] * self.blocks
        for seat, rate in zip(self.seats, self.rates, strict=True):
            for block in seat.span:
                total[block] += rate
        return total

    def _change(self, starts: Starts, total: list[float]) -> tuple[Starts, list[float]]:
        """Take some nodes off, and put each where the power mean gains most, or home if that is worth the move."""
        starts, total = list(starts), list(total)
        taken = self.random.sample(self.movable, self.random.randint(1, min(MAX_TAKEN, len(self.movable))))
        for at in taken:
            for block in range(starts[at], starts[at] + self.seats[at].length):
                rest = total[block] - self.rates[at]
                total[block] = rest if rest > NONE else 0.0
        for at in taken:
            starts[at] = self._best_start(at, total)
            for block in range(starts[at], starts[at] + self.seats[at].length):
                total[block] += self.rates[at]
        return starts, total

    def _best_start(self, at: int, total: list[float]) -> int:
        rate, length, home = self.rates[at], self.seats[at].length, self.home[at]
        pains = [(there + LITTLE) ** -SHARPNESS for there in total]
        eased = [pain - (there + rate + LITTLE) ** -SHARPNESS for pain, there in zip(pains, total, strict=True)]
        sums = [0.0, *accumulate(eased)]
        gains = [sums[start + length] - sums[start] for start in range(self.blocks - length + 1)]
        best = max(gains)
        pain = sum(pains)
        if pain - gains[home] <= (pain - best) * math.exp(SHARPNESS * self.move_cost):
            return home
        return gains.index(best)

    def _moves(self, starts: Starts) -> int:
        return sum(start != home for start, home in zip(starts, self.home, strict=True))

    def _cost(self, starts: Starts, total: list[float]) -> float:
        pain = sum((there + LITTLE) ** -SHARPNESS for there in total)
        return math.log(pain) / SHARPNESS + self.move_cost * self._moves(starts)

    def _value(self, starts: Starts, total: list[float]) -> tuple[int, float]:
        gaps = sum(there <= NONE for there in total)
        return -gaps, math.log(max(min(total), NONE)) - self.move_cost * self._moves(starts)
