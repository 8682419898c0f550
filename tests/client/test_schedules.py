"""Whatever dies, in whatever order things happen: the outputs are those of an undisturbed run, and no step hangs."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from random import Random

import pytest
import torch
from nectar import keeper as keeper_module
from nectar import route as route_module
from nectar.route import Route
from nectar.routing import Candidate
from nectar.session import Session
from nectar_protocol.manifest import ModelID
from nectar_swarm import history as history_module

from tests.client.simulation import CLIENT, SimulatedNode, SimulatedSwarm, run_blocks

BLOCKS, WIDTH, REPLICAS = 6, 2, 3
CHAINS = [[(0, 3), (3, 6)], [(0, 2), (2, 4), (4, 6)], [(0, 2), (2, 3), (3, 5), (5, 6)]]
SEEDS, SEEDS_AT_ONCE = 400, 40
FIRSTS = range(0, SEEDS, SEEDS_AT_ONCE)
IDLE_TURNS = 1000  # without an event, and without an answer: the step hangs


class Play:
    """One session's life under one seed. `run` raises AssertionError for a wrong output and for a step that hangs."""

    def __init__(self, seed: int, candidate: Callable[..., Candidate], monkeypatch: pytest.MonkeyPatch) -> None:
        self.swarm = SimulatedSwarm(seed, WIDTH)
        self.dice = self.swarm.dice
        self.noise = torch.Generator().manual_seed(seed)
        monkeypatch.setattr(keeper_module, "time", self.swarm)
        monkeypatch.setattr(keeper_module, "RETRY_S", 0.0)
        monkeypatch.setattr(keeper_module, "MISSED_S", 0.0)
        monkeypatch.setattr(route_module, "Random", partial(Random, seed))
        monkeypatch.setattr(history_module, "MERGE_TOKENS", self.dice.choice([2, 4, 512]))
        self._people(candidate)
        self.batch = self.dice.choice([1, 2, 3])
        self.deadliness = self.dice.choice([0.005, 0.02, 0.05])
        self.flakiness, self.fullness = self.dice.choice([0, 0, 0.01]), self.dice.choice([0, 0, 0.1])
        self.kills = 0

    def _people(self, candidate: Callable[..., Candidate]) -> None:
        """Three nodes for each span; in some swarms many serve more than that, and some pairs cannot meet."""
        wide = self.dice.choice([0, 0, 0.5])
        for start, stop in self.dice.choice(CHAINS) * REPLICAS:
            if self.dice.random() < wide:
                start, stop = max(0, start - self.dice.randint(0, 2)), min(BLOCKS, stop + self.dice.randint(0, 2))
            number = len(self.swarm.nodes)
            self.swarm.join(candidate(number, start, stop, 0.001 + 0.0001 * number))
        for _ in range(self.dice.choice([0, 0, 2])):
            self.swarm.apart.add(frozenset(self.dice.sample(list(self.swarm.nodes), 2)))

    async def run(self) -> None:
        swarm, dice = self.swarm, self.dice
        session = Session(swarm, ModelID(b"m" * 32), Route(BLOCKS), torch.float32, 500, 30.0)  # type: ignore[arg-type]
        session.pads = (0,) * self.batch
        past = torch.zeros(self.batch, 0, WIDTH)
        for number in range(dice.randint(4, 14)):
            position = max(0, past.shape[1] - dice.choice([0, 0, 0, 1, 3, 6]))
            hidden = torch.randn(self.batch, dice.choice([1, 1, 2, 5]), WIDTH, generator=self.noise)
            reorder = tuple(dice.choices(range(self.batch), k=self.batch)) if number and dice.random() < 0.4 else ()
            kept = past[list(reorder)] if reorder else past
            past = torch.cat([kept[:, :position], hidden], 1)
            answer: Future[torch.Tensor] = Future()
            session.begin(hidden, position, reorder, answer)
            out = await self._under_fire(session, answer)
            torch.testing.assert_close(out, run_blocks(past, BLOCKS)[:, position:], atol=1e-4, rtol=1e-4)
            for _ in range(dice.choice([0, 3, 50])):
                swarm.happen()
                await asyncio.sleep(0)

    async def _under_fire(self, session: Session, step: Future[torch.Tensor]) -> torch.Tensor:
        idle = 0
        while not step.done():
            for _ in range(3):
                await asyncio.sleep(0)
            self._disturb(session)
            idle = 0 if self.swarm.happen() else idle + 1
            assert idle < IDLE_TURNS, f"hangs: {session._keeper._reasons}"
        return step.result()

    def _disturb(self, session: Session) -> None:
        nodes, dice = list(self.swarm.nodes.values()), self.dice
        if dice.random() < self.deadliness:
            route = [self.swarm.nodes[span.peer] for span in session.route]
            if mortal := [node for node in route or nodes if self._can_be_spared(node)]:
                dice.choice(mortal).die()
                self.kills += 1
        if dice.random() < self.flakiness:
            self.swarm.cut(dice.choice(nodes).peer, dice.choice([CLIENT, *self.swarm.nodes]))
        if dice.random() < self.fullness:
            dice.choice(nodes).full ^= True
        if dice.random() < 0.02:
            dice.choice(nodes).alive = True

    def _can_be_spared(self, node: SimulatedNode) -> bool:
        start, stop = node.candidate.start, node.candidate.stop
        others = (other for other in self.swarm.nodes.values() if other.alive and other is not node)
        return node.alive and any(
            other.candidate.start <= start and stop <= other.candidate.stop and not other.full for other in others
        )


@pytest.mark.parametrize("first", [*FIRSTS[:5], *(pytest.param(first, marks=pytest.mark.slow) for first in FIRSTS[5:])])
def test_every_schedule_gives_the_undisturbed_outputs(
    first: int, candidate: Callable[..., Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    for seed in range(first, first + SEEDS_AT_ONCE):
        play = Play(seed, candidate, monkeypatch)
        try:
            asyncio.run(play.run())
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert play.swarm.gaps == [], f"seed {seed}"
        kills += play.kills
    assert kills > SEEDS_AT_ONCE


def test_the_same_seed_gives_the_same_schedule(
    candidate: Callable[..., Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for _ in range(2):
        play = Play(7, candidate, monkeypatch)
        asyncio.run(play.run())
        ends.append((play.kills, play.swarm.now_s, play.dice.random()))
    assert ends[0] == ends[1]
