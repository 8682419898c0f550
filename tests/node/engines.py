"""An engine on a bench: a runner that can be held, and what is delivered."""

import asyncio
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from nectar_node.engine import Engine
from nectar_node.runner import Piece
from nectar_node.scheduler import Work
from nectar_node.speed import Speed
from nectar_swarm.history import InMemory

BLOCKS = 4
HANGS_S = 60.0  # a test that waits so long has failed
BROKEN, LATE, UNPREPARED = 666.0, 667.0, 668.0  # hidden states that fail: with others, in their place, in preparation


@dataclass(eq=False)
class KV:
    start: int = 0
    stop: int = BLOCKS


@dataclass
class Doubling:
    """A runner that doubles what it is given, in as many forwards as it is allowed."""

    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    forwards: list[list[int]] = field(default_factory=list)  # of each forward, the tokens of its pieces
    values: list[set[float]] = field(default_factory=list)  # and what they begin with
    threads: set[int] = field(default_factory=set)

    def allow(self, forwards: int = 1_000) -> None:
        self.allowed.release(forwards)

    def prepare(self, piece: Piece) -> None:
        if (piece.hidden == UNPREPARED).any():
            raise ValueError("not prepared")

    def run(self, pieces: Sequence[Piece]) -> list[torch.Tensor | Exception]:
        self.begun.release()
        self.allowed.acquire()
        self.threads.add(threading.get_ident())
        if any((piece.hidden == BROKEN).any() for piece in pieces):
            raise RuntimeError("broken")
        self.values.append({float(piece.hidden[0, 0, 0]) for piece in pieces})
        self.forwards.append([piece.hidden.shape[1] for piece in pieces])
        return [ValueError("late") if (piece.hidden == LATE).any() else piece.hidden * 2 for piece in pieces]


class Bench:
    """An engine and what it delivers."""

    def __init__(self, runner: Any, speed: Speed | None = None) -> None:
        self.runner, self.speed = runner, speed or Speed()
        self.delivered: asyncio.Queue[tuple[Work, torch.Tensor | Exception]] = asyncio.Queue()
        self.engine = Engine(runner, self.speed, BLOCKS, lambda work, result: self.delivered.put_nowait((work, result)))

    def submit(
        self,
        flow: Hashable,
        tokens: int = 1,
        value: float = 1.0,
        kv: KV | None = None,
        position: int = 0,
        reorder: tuple[int, ...] = (),
        replay: bool = False,
        weight: int = 0,
    ) -> Work:
        stored = InMemory(torch.full((1, tokens, 2), value))
        work = Work(flow, kv or KV(), position, 1, tokens, stored, reorder, replay=replay, weight=weight)
        self.engine.submit(work)
        return work

    async def results(self, count: int) -> list[tuple[Work, Any]]:
        async with asyncio.timeout(HANGS_S):
            return [await self.delivered.get() for _ in range(count)]

    async def busy(self) -> None:
        """Until the next forward has begun."""
        await asyncio.to_thread(self.runner.begun.acquire)
