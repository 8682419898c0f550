"""Who pays beside those who do not, on a real node: how long a step takes, and who gets how much."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from nectar.session import Session

from benchmarks.economy.load import Load, open_load
from benchmarks.economy.sharing import WEIGHTS, Shares
from benchmarks.economy.venue import Place

CROWD = 50
WEIGHT = 8
PROMPT = 16
SETTLE_S = 0.5
EACH = 12  # sessions of each weight, and free ones
TOKENS = 64  # of a step; a full iteration has eight of these, and 59 or more are there to choose from
WARM_STEPS = 120
ROWS = 512  # of an iteration


@dataclass(frozen=True)
class Delay:
    """A paid step's 95th percentile in seconds, and how many steps there were of each kind."""

    idle_s: float
    crowded_s: float
    steps: int
    free_steps: int


def delay(place: Place, crowd: Load, rounds: int, steps: int) -> Delay:
    """One paid session, in turns on the idle node and under a crowd."""
    idle_s: list[float] = []
    crowded_s: list[float] = []
    free = Counter[int]()
    length = PROMPT + 2 * rounds * (steps + 1)
    with place.connection() as connection:
        model = place.client(connection, pays=True)
        with model.session(length, weight=WEIGHT) as session:
            session.step(hidden_states(place, PROMPT), 0)
            for _ in range(rounds):
                idle_s += _steps_s(session, place, steps)
                before = crowd.steps()
                crowd.go()
                time.sleep(SETTLE_S)
                crowded_s += _steps_s(session, place, steps)
                crowd.pause()
                free += crowd.steps() - before
    return Delay(_p95(idle_s), _p95(crowded_s), len(idle_s), free.total())


def _steps_s(session: Session, place: Place, number: int) -> list[float]:
    """Each step's seconds; one before them is not counted."""
    times_s, hidden = [], hidden_states(place, 1)
    for _ in range(number + 1):
        began_s = time.perf_counter()
        session.step(hidden, session.position)
        times_s.append(time.perf_counter() - began_s)
    return times_s[1:]


def hidden_states(place: Place, tokens: int) -> torch.Tensor:
    """[1, tokens, width], the same each time."""
    return torch.randn(1, tokens, place.stage.width, generator=torch.Generator().manual_seed(0))


def _p95(times_s: list[float]) -> float:
    return float(torch.tensor(times_s).quantile(0.95))


def share(place: Place, iterations: int) -> Shares:
    """Of about so many iterations, which are full."""
    with open_load(place, dict.fromkeys((0, *WEIGHTS), EACH), TOKENS) as load:
        load.go()
        before = _await(load, lambda steps: steps >= WARM_STEPS)
        most = before.total() + iterations * ROWS // TOKENS
        got = _await(load, lambda steps: steps >= most) - before
        load.pause()
    return Shares({weight: got[weight] / got.total() for weight in WEIGHTS}, got[0] / got.total())


def _await(load: Load, enough: Callable[[int], bool]) -> Counter[int]:
    while not enough((steps := load.steps()).total()):
        time.sleep(0.02)
    return steps
