"""A node's rows under more demand than it can meet: who gets how many, by the product's own scheduler."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nectar_node.fairqueue import FREE_SHARE, FairQueue
from nectar_node.scheduler import MAX_ROWS, Work
from nectar_swarm.history import InMemory

from benchmarks.economy.gain import Gain, worst
from benchmarks.economy.market import Market, decoded

BUDGET = 16  # rows of an iteration
ITERATIONS = 800
NOTHING = InMemory(torch.zeros(0))


class Customer(NamedTuple):
    """A session, and how many rows and tokens each of its steps has; with weight 0 it does not pay."""

    name: str
    number: int
    weight: int
    rows: int = 1
    tokens: int = 1


@dataclass(frozen=True)
class Blocks:
    """In a KV's place."""

    start: int = 0
    stop: int = 4


Absence = Callable[[Customer, int], bool]  # whether a session sits an iteration out


def crowd(name: str, number: int, weight: int, rows: int = 1, tokens: int = 1) -> list[Customer]:
    return [Customer(name, n, weight, rows, tokens) for n in range(number)]


def _never(one: Customer, at: int) -> bool:
    return False


def serve(customers: Sequence[Customer], absent: Absence = _never) -> Counter[str]:
    """Rows that each name has got, when each session wants its next step as soon as its last one is done."""
    queue, got = FairQueue(max_rows=BUDGET), Counter[str]()
    away = list(customers)
    for number in range(ITERATIONS):
        late = [one for one in away if absent(one, number)]
        for one in away:
            if one not in late:
                queue.add(Work(one, Blocks(), 0, one.rows, one.tokens, NOTHING, weight=one.weight))
        away = late
        for grant in queue.take(BUDGET, MAX_ROWS):
            grant.work.done += grant.tokens
            served = grant.work.flow
            assert isinstance(served, Customer)
            got[served.name] += grant.rows
            if not grant.work.left:
                away.append(served)
    return got


PEERS = 24  # of weight 1, beside whom a whale swims
WHALES: tuple[list[Customer], ...] = (
    crowd("whale", 4, 8, rows=16),
    crowd("whale", 1, 8, rows=BUDGET),
    crowd("whale", 2, 8, tokens=8),
    crowd("whale", 8, 4, rows=2),
    crowd("whale", 2, 8, tokens=1_000),
    crowd("whale", 1, 1, rows=2 * BUDGET),
)


def starve(whales: Sequence[list[Customer]] = WHALES) -> Gain:
    """Sessions of high weight with large steps, always there or in bursts, beside many small ones that pay less: by
    weight, and by one step of each at most, they get what they pay for.
    """
    return worst(*(_starve(whale, absent) for whale in whales for absent in (_never, _in_bursts)))


def _in_bursts(one: Customer, at: int) -> bool:
    return one.name == "whale" and at % 8 < 4


def _starve(whale: Sequence[Customer], absent: Absence) -> Gain:
    got = serve([*crowd("peer", PEERS, 1), *whale], absent)
    weight = sum(one.weight for one in whale)
    slack = sum(one.rows * min(one.tokens, BUDGET) + one.weight for one in whale)
    due = (got["whale"] + got["peer"]) * weight / (weight + PEERS)
    return Gain(*(rows * _row_ucr() for rows in (got["whale"], due, slack)))


def flood(identities: Sequence[int] = (1, 10, 100), rows: Sequence[int] = (1, 8)) -> Gain:
    """Any number of sessions that do not pay, with steps of any size: together they have their part, and no more while
    others wait.
    """
    return worst(*(_flood(number, size) for number in identities for size in rows))


def _flood(identities: int, rows: int) -> Gain:
    got = serve([*crowd("peer", PEERS, 1), *crowd("flood", identities, 0, rows)])
    due = FREE_SHARE * (got["flood"] + got["peer"])
    return Gain(*(amount * _row_ucr() for amount in (got["flood"], due, BUDGET)))


def _row_ucr() -> int:
    """What a token costs."""
    market = Market()
    return market.price_ucr(market.meter.units(decoded(1)))
