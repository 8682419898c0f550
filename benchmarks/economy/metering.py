"""What a ledger costs those who use it: sessions under holds beside sessions of the same client and node without any.

The node is one that takes holds, so sessions of both kinds alternate on it and whatever else goes on hits them alike.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from nectar.session import Session

from benchmarks.economy.venue import Place
from benchmarks.tokens import random_prompts

PROMPT = 16
WINDOW = 8  # steps of a bill
QUIET_S = 0.35  # after which everything is billed
SESSIONS = 16


@dataclass(frozen=True)
class Compared:
    """The same with a ledger and without, in seconds, round by round: a machine's load changes with time."""

    paid_s: tuple[float, ...]
    free_s: tuple[float, ...]

    @property
    def added_s(self) -> float:
        return statistics.median(paid_s - free_s for paid_s, free_s in zip(self.paid_s, self.free_s, strict=True))

    @property
    def cost(self) -> float:
        """The part of the speed that is lost."""
        return 1 - statistics.median(free_s / paid_s for paid_s, free_s in zip(self.paid_s, self.free_s, strict=True))


def steps(place: Place, rounds: int) -> list[Compared]:
    """The steps of one session: each of a window's steps, in so many rounds.

    A window has one bill, behind its last step but one. Its first step is not counted, which comes after a pause; in
    the pause the session is billed for what the last step has left.
    """
    length = PROMPT + (rounds + 1) * (WINDOW + 1)
    with place.connection() as connection, ExitStack() as stack:
        paid, free = (place.client(connection, pays=pays) for pays in (True, False))
        sessions = [stack.enter_context(paid.session(length, weight=1)), stack.enter_context(free.session(length))]
        hidden = torch.randn(1, length, place.stage.width, generator=torch.Generator().manual_seed(0))
        for session in sessions:
            session.step(hidden[:, :PROMPT], 0)
        rows: list[list[list[float]]] = [[], []]
        for _ in range(rounds + 1):  # the first warms up
            for session, times_s in zip(sessions, rows, strict=True):
                times_s.append(_window(session, hidden))
                time.sleep(QUIET_S)
    paid_s, free_s = (list(zip(*times_s[1:], strict=True)) for times_s in rows)
    return [Compared(*both) for both in zip(paid_s, free_s, strict=True)]


def _window(session: Session, hidden: torch.Tensor) -> list[float]:
    """Seconds of each counted step."""
    times_s = []
    for _ in range(WINDOW + 1):
        began_s = time.perf_counter()
        session.step(hidden[:, session.position : session.position + 1], session.position)
        times_s.append(time.perf_counter() - began_s)
    return times_s[1:]


def throughput(place: Place, rounds: int, tokens: int) -> Compared:
    """Whole calls of generate(), 16 at once, from the first one's start to the last one's end."""
    times_s: tuple[list[float], list[float]] = ([], [])
    with place.connection() as connection, ThreadPoolExecutor(SESSIONS) as pool:
        models = [place.client(connection, pays=pays) for pays in (True, False)]
        for number in range(rounds):
            prompts = random_prompts(SESSIONS, PROMPT, number)
            both = list(zip(models, ({"weight": 1}, {}), times_s, strict=True))
            for model, options, kept in both if number % 2 else reversed(both):
                kept.append(_generate(pool, model, prompts, tokens, options))
    return Compared(tuple(times_s[0]), tuple(times_s[1]))


def _generate(
    pool: ThreadPoolExecutor, model: Any, prompts: torch.Tensor, tokens: int, options: dict[str, Any]
) -> float:
    def one(prompt: torch.Tensor) -> Any:
        return model.generate(prompt, max_new_tokens=tokens, do_sample=False, **options)

    began_s = time.perf_counter()
    list(pool.map(one, torch.split(prompts, 1)))
    return time.perf_counter() - began_s
