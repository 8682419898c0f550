"""Do nodes find good places by themselves? The product's own rules, under a virtual clock.

Ten nodes of very different speeds and memories are left after joins (some at the same moment), leaves and crashes, and
then have an hour. The directory is a slow one: words take up to five seconds to arrive, one in fifty is lost, reads
may be half a minute old, and the dead stay listed until their word expires. Loading takes up to three minutes.

`bottleneck_ratio` is the worst block's throughput over the best that these ten nodes could have at any places, with
as many blocks each as they have room for (proven, see `optimum.py`); the median over swarms. A **gap from a move** is
a block that no other node serves when a moving node stops taking sessions, or unloads. A **herd** is a node
that sets out for blocks to which another is on its way already, without having reckoned with it.

    python -m benchmarks.placement [--swarms 40] [--seed 0] [--quick] [--json]
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from nectar_node.announcer import Announcer, Pace
from nectar_node.mover import Mover, Span
from nectar_node.speed import Speed
from nectar_node.stay import Stay
from nectar_protocol.announcement import Announcement, Profile
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import UnreachableError

from benchmarks.optimum import best_bottleneck
from benchmarks.virtual import VirtualLoop

MODEL = ModelID(b"m" * 32)
BLOCKS = (16, 24, 32)
ROOMS = (0.08, 0.12, 0.16, 0.25, 0.35, 0.5)  # of the model, in a node's memory
MIN_ROOM = 1.5  # of the model, in the memories of those that remain
SKEW = 1.0  # of the logarithm of the speeds: one node in ten is 13 times as fast as another
NODES, LEAVES, CRASHES = 10, 2, 3
CHURN_S, SETTLING_S = 1800.0, 3600.0
WORD_S, LOST, OLD_READS, OLD_S = 5.0, 0.02, 0.3, 30.0
LOAD_S, DRAIN_S, NOISE = (20.0, 180.0), 40.0, 0.03
PACE = Pace()


class SlowDirectory:
    """What peers have heard of each other."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.words: dict[PublicKey, list[tuple[float, Announcement]]] = {}

    async def announce(self, announcement: Announcement) -> bool:
        delay_s = self.random.uniform(0.2, WORD_S)
        if self.random.random() >= LOST:
            heard_s = asyncio.get_running_loop().time() + delay_s
            words = [word for word in self.words.get(announcement.node, []) if word[1].expires_ms > heard_s * 1000]
            self.words[announcement.node] = [*words, (heard_s, announcement)]
        await asyncio.sleep(delay_s)
        return True

    async def nodes(self, model: ModelID) -> list[Announcement]:
        now_s = asyncio.get_running_loop().time()
        seen_s = now_s - (self.random.uniform(0, OLD_S) if self.random.random() < OLD_READS else 0.0)
        last = (
            max((a for heard_s, a in words if heard_s <= seen_s), key=lambda a: a.expires_ms, default=None)
            for words in self.words.values()
        )
        return [a for a in last if a is not None and a.expires_ms > now_s * 1000]


class SimulatedNode:
    """A node without a model: `room` blocks in its memory, `blocks_per_s` through any of them.

    `span` is what it serves; None while it takes no sessions.
    """

    def __init__(self, swarm: "Swarm", number: int, room: int, blocks_per_s: float) -> None:
        self.swarm, self.room, self.rate = swarm, room, blocks_per_s / room
        self.identity = Identity.from_seed(number.to_bytes(32, "big"))
        self.random = random.Random(f"{swarm.seed}/{number}")
        self.span: Span | None = None
        self.alive, self.moves, self.stop = False, 0, asyncio.Event()
        loop = asyncio.get_running_loop()
        self.announcer = Announcer(self.identity, MODEL, Profile.F32, PACE, lambda: int(loop.time() * 1000))

    async def live(self) -> None:
        self.alive = True
        self.announcer.attach(self.swarm.directory, self._addresses)  # type: ignore[arg-type]
        self.mover = mover = Mover(self.swarm.directory, self.announcer, self.swarm.blocks, self.random)  # type: ignore[arg-type]
        repeating = asyncio.create_task(self._repeat())
        try:
            target: Span | None = await mover.join(self.room)
            while target is not None:
                await asyncio.sleep(self.random.uniform(*LOAD_S))
                self.announcer.speed = Speed(decode_s=self.random.lognormvariate(0, NOISE) / self.rate)
                target = await self._stay(target, mover)
        finally:
            self.alive, self.span = False, None
            self.swarm.on_the_way.pop(self, None)
            repeating.cancel()

    async def _stay(self, span: Span, mover: Mover) -> Span | None:
        door = Door(self, span)
        stay = Stay(door, self.announcer, span, mover, DRAIN_S)  # type: ignore[arg-type]
        await stay.begin()
        target = await stay.end(self.stop, asyncio.Event())
        if target is not None:
            self.moves += 1
            self.swarm.on_gone(self, span)
        return target

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(PACE.refresh_s)
            await self.announcer.repeat()

    async def _addresses(self) -> tuple[()]:
        return ()


class Door:
    """Stands for the service: sessions come in until it drains."""

    def __init__(self, node: SimulatedNode, span: Span) -> None:
        self.node, self._span = node, span
        self.peers = SimpleNamespace(connect=self._connect)
        self.leaving = False

    @property
    def leaving(self) -> bool:
        return self.node.span is None

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self.node.span = None if leaving else self._span
        if not leaving:
            self.node.swarm.on_the_way.pop(self.node, None)

    async def drain(self, timeout_s: float) -> None:
        self.leaving = True
        if not self.node.stop.is_set():
            self.node.swarm.on_departure(self.node, self._span)
        await asyncio.sleep(self.node.random.uniform(0, timeout_s))

    async def _connect(self, peer: str, addresses: Sequence[Any]) -> SimpleNamespace:
        if not any(node.alive and node.identity.peer_id == peer for node in self.node.swarm.nodes):
            raise UnreachableError(f"{peer} is dead")
        return SimpleNamespace(suspected=False)


@dataclass(frozen=True)
class Result:
    """How a swarm ended, and what happened on the way."""

    seed: int
    blocks: int
    ratio: float
    moves: int
    gaps: int
    herds: int
    last_move_s: float  # after the last join, leave or crash


class Swarm:
    """One seeded history."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.blocks = self.random.choice(BLOCKS)
        self.directory = SlowDirectory(self.random)
        self.nodes: list[SimulatedNode] = []
        self.gaps = self.herds = 0
        self.on_the_way: dict[SimulatedNode, Span] = {}
        self.last_move_s = 0.0

    async def run(self) -> Result:
        shapes = self._shapes()
        going = NODES + LEAVES + CRASHES
        self.nodes = [SimulatedNode(self, number, *shape) for number, shape in enumerate(shapes)]
        joins_s = [0.0 if number % 3 == 0 else self.random.uniform(0, CHURN_S / 2) for number in range(going)]
        ends_s = [self.random.uniform(CHURN_S / 2, CHURN_S) for _ in range(LEAVES + CRASHES)]
        tasks = [
            asyncio.create_task(after(join_s, node.live())) for join_s, node in zip(joins_s, self.nodes, strict=True)
        ]
        for at, end_s in enumerate(ends_s):
            end = self.nodes[at].stop.set if at < LEAVES else tasks[at].cancel
            asyncio.get_running_loop().call_later(end_s, end)
        await asyncio.sleep(CHURN_S + SETTLING_S)
        left = self.nodes[LEAVES + CRASHES :]
        total = [sum(n.rate for n in left if n.span and n.span[0] <= b < n.span[1]) for b in range(self.blocks)]
        best = best_bottleneck([(node.room, node.rate) for node in left], self.blocks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return Result(
            self.seed, self.blocks, round(min(total) / best, 3), sum(node.moves for node in self.nodes), self.gaps,
            self.herds, round(self.last_move_s - CHURN_S),
        )  # fmt: skip

    def _shapes(self) -> list[tuple[int, float]]:
        """Room and speed of each node; those that remain come last."""
        while True:
            rooms = [max(1, round(self.blocks * self.random.choice(ROOMS))) for _ in range(NODES + LEAVES + CRASHES)]
            if sum(rooms[LEAVES + CRASHES :]) >= MIN_ROOM * self.blocks:
                return [(room, 100 * self.random.lognormvariate(0, SKEW)) for room in rooms]

    def on_departure(self, node: SimulatedNode, span: Span) -> None:
        """A node that moves takes no more sessions."""
        self.on_gone(node, span)
        last, seen = node.announcer.last, node.mover.layout
        assert last is not None, "nobody moves without a word"
        assert seen is not None, "nobody moves without having looked"
        for other, (start, stop) in self.on_the_way.items():
            seat = seen.seats.get(other.identity.public)
            if start < last.stop and last.start < stop and seat is not None and seat.start != start:
                self.herds += 1
        self.on_the_way[node] = (last.start, last.stop)
        self.last_move_s = asyncio.get_running_loop().time()

    def on_gone(self, node: SimulatedNode, span: Span) -> None:
        served = [other.span for other in self.nodes if other.span is not None and other is not node]
        self.gaps += sum(not any(start <= block < stop for start, stop in served) for block in range(*span))


async def after(delay_s: float, work: Coroutine[Any, Any, None]) -> None:
    await asyncio.sleep(delay_s)
    await work


def simulate(seed: int) -> Result:
    """One swarm, from its first node to its end."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(Swarm(seed).run())
    finally:
        loop.close()


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The keys that the benchmark's last line holds."""
    ratios, moves = [result.ratio for result in results], sum(result.moves for result in results)
    return {
        "swarms": len(results),
        "bottleneck_ratio": statistics.median(ratios),
        "bottleneck_ratio_worst": min(ratios),
        "gaps_from_moves": sum(result.gaps for result in results),
        "herds": sum(result.herds for result in results),
        "moves": moves,
        "moves_per_node": round(moves / len(results) / (NODES + LEAVES + CRASHES), 2),
        "last_move_s_median": statistics.median(result.last_move_s for result in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Let nodes find their places under a virtual clock.")
    parser.add_argument("--swarms", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="six swarms")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    for seed in range(options.seed, options.seed + (6 if options.quick else options.swarms)):
        results.append(simulate(seed))
        print(*(f"{key} {value}" for key, value in asdict(results[-1]).items()), sep=", ", file=sys.stderr)
    if options.json:
        print(json.dumps({"results": [asdict(result) for result in results], **summary(results)}))
    else:
        print(*(f"{key:26} {value}" for key, value in summary(results).items()), sep="\n")


if __name__ == "__main__":
    main()
