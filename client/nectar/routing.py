"""Which nodes a session should run through: chains of little expected latency. Pure functions.

The cost of a chain is the time of one decoded token. A link between two nodes is not known to us and taken as the mean
of ours to each, so that every node adds half of its round trip from here, what steps wait on it, and its measured time
for its share of blocks. Of all chains within a tenth of the cheapest one is drawn: clients that all take the cheapest
herd.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, Profile
from nectar_protocol.identity import PeerID

from nectar.errors import NoRouteError, UntrustedError

HOP_S = 0.001  # what a node costs beyond its link and its computing: frames, wake-ups
MAX_FASTEST = 256  # nodes that are met because each is the fastest for some block, by its own word
SLACK = 0.1  # by how much more than the cheapest chain a drawn one may cost

PeerSet = frozenset[PeerID]
Choose = Callable[[list[tuple[float, int]]], int]  # one of some (cost of the cheapest chain that goes on so, number)


@dataclass(frozen=True)
class Candidate:
    """A node that serves blocks [start, stop): `decode_s` for a token through all of them, `rtt_s` from here.

    A step waits `wait_s` there before it runs. Of `kv_total` positions of KV a session that does not pay may have
    `kv_free`; both are None if the node did not say. Sessions of `busy_from` positions or more shall leave it alone.
    `ledger` is the one whose holds it takes, if it takes any.
    """

    peer: PeerID
    addresses: tuple[Address, ...]
    start: int
    stop: int
    decode_s: float
    rtt_s: float
    wait_s: float = 0.0
    kv_free: int | None = None
    kv_total: int | None = None
    busy_from: int | None = None
    profile: Profile = Profile.F32
    ledger: bytes = b""

    @property
    def block_s(self) -> float:
        return self.decode_s / (self.stop - self.start)

    def only(self, start: int, stop: int) -> "Candidate":
        """The same node with some of its blocks."""
        return replace(self, start=start, stop=stop, decode_s=self.block_s * (stop - start))

    @property
    def enter_s(self) -> float:
        """What a token pays for coming here at all."""
        return self.rtt_s / 2 + HOP_S + self.wait_s


@dataclass(frozen=True)
class Leg:
    """Blocks [start, stop) of a route, on one node."""

    candidate: Candidate
    start: int
    stop: int

    @property
    def cost_s(self) -> float:
        return self.candidate.enter_s + self.candidate.block_s * (self.stop - self.start)


class Serving(Protocol):
    """Whatever serves blocks [start, stop)."""

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...


def find_route(
    candidates: Sequence[Candidate],
    start: int,
    stop: int,
    *,
    trusted: PeerSet | None = None,
    ends: tuple[bool, bool] = (True, True),
    chance: Random | None = None,
) -> list[Leg]:
    """A chain through blocks [start, stop): the cheapest, or with `chance` one drawn from those within SLACK of it.

    With `trusted`, only these peers run the first block and the last one; `ends` says at which of the two that matters.
    Raises NoRouteError with the spans nobody serves, or UntrustedError with the ends that no trusted peer serves.
    """
    if missing := missing_spans(candidates, start, stop):
        raise NoRouteError(missing)
    first, last = (trusted if matters else None for matters in ends)
    for_ends = [(start, first), (stop - 1, last)]
    if unserved := [block for block, peers in for_ends if not _anybody(candidates, block, peers)]:
        raise UntrustedError([(block, block + 1) for block in dict.fromkeys(unserved)])
    outlook = _Outlook(candidates, start, stop, first, last)
    best = _merge(outlook.walk(lambda ways: min(ways)[1]))
    if chance is None:
        return best
    limit_s = (1 + SLACK) * outlook.best_s

    def draw(ways: list[tuple[float, int]]) -> int:
        near = [way for way in ways if way[0] <= limit_s] or [min(ways)]
        return chance.choices([number for _, number in near], [1 / cost_s for cost_s, _ in near])[0]

    drawn = _merge(outlook.walk(draw))
    return drawn if sum(leg.cost_s for leg in drawn) <= limit_s else best


def _anybody(candidates: Sequence[Candidate], block: int, peers: PeerSet | None) -> bool:
    return peers is None or any(one.peer in peers and one.start <= block < one.stop for one in candidates)


class _Outlook:
    """What is still to be paid from every point on, so that a walk forward knows what each way costs in the end.

    Points are where some candidate's blocks begin or end. A chain gains nothing by changing nodes elsewhere: moved to
    a point, a change costs less in one of the two directions.
    """

    def __init__(
        self, candidates: Sequence[Candidate], start: int, stop: int, first: PeerSet | None, last: PeerSet | None
    ) -> None:
        ends = {end for one in candidates for end in (one.start, one.stop) if start < end < stop}
        self.candidates, self.points = candidates, sorted({start, stop, *ends})
        steps = len(self.points) - 1
        self._reach = [bisect_left(self.points, min(one.stop, stop)) for one in candidates]
        self._serving: list[list[int]] = [[] for _ in range(steps)]
        for number, one in enumerate(candidates):
            for at in range(bisect_left(self.points, max(one.start, start)), self._reach[number]):
                self._serving[at].append(number)
        self._may_enter = [first is None or one.peer in first for one in candidates]
        self._may_end = [last is None or one.peer in last for one in candidates]
        self._inside: list[dict[int, float]] = [{} for _ in range(steps)]  # from each point on, in a node entered
        self._fresh = [math.inf] * steps + [0.0]  # from each point on, with a node still to be entered
        for at in reversed(range(steps)):
            self._look_back(at)

    @property
    def best_s(self) -> float:
        return self._fresh[0]

    def _look_back(self, at: int) -> None:
        blocks, inside = self.points[at + 1] - self.points[at], self._inside[at]
        later = self._inside[at + 1] if at + 1 < len(self._inside) else {}
        for number in self._serving[at]:
            stay_s = later.get(number, math.inf)
            inside[number] = blocks * self.candidates[number].block_s + min(stay_s, self._leave(number, at + 1))
        entered = [self.candidates[number].enter_s + inside[number] for number in self._entrances(at)]
        self._fresh[at] = min(entered, default=math.inf)

    def _entrances(self, at: int) -> list[int]:
        return [number for number in self._serving[at] if at or self._may_enter[number]]

    def _leave(self, number: int, at: int) -> float:
        """What is to be paid from a point on by who leaves this node there."""
        at_end = at == len(self._inside)
        return math.inf if at_end and not self._may_end[number] else self._fresh[at]

    def walk(self, choose: Choose) -> list[Leg]:
        """From node to node to the end: `choose` says which to enter and at which point to leave it."""
        legs: list[Leg] = []
        at, spent_s = 0, 0.0
        while at < len(self._inside):
            number = choose([(spent_s + self._entry(at, number), number) for number in self._entrances(at)])
            one, ways, run_s = self.candidates[number], [], {}
            spent_s += one.enter_s
            for to in range(at + 1, self._reach[number] + 1):
                run_s[to] = spent_s + one.block_s * (self.points[to] - self.points[at])
                ways.append((run_s[to] + self._leave(number, to), to))
            to = choose(ways)
            legs.append(Leg(one, self.points[at], self.points[to]))
            at, spent_s = to, run_s[to]
        return legs

    def _entry(self, at: int, number: int) -> float:
        return self.candidates[number].enter_s + self._inside[at][number]


def _merge(legs: Sequence[Leg]) -> list[Leg]:
    """A node that is entered twice runs all that lies between, which it serves too."""
    merged: list[Leg] = []
    for leg in legs:
        again = next((at for at, before in enumerate(merged) if before.candidate == leg.candidate), None)
        if again is not None:
            leg = Leg(leg.candidate, merged[again].start, leg.stop)
            del merged[again:]
        merged.append(leg)
    return merged


def missing_spans(nodes: Sequence[Serving], start: int, stop: int) -> list[tuple[int, int]]:
    """The spans of [start, stop) that no node serves."""
    spans: list[tuple[int, int]] = []
    for block in range(start, stop):
        if any(node.start <= block < node.stop for node in nodes):
            continue
        if spans and spans[-1][1] == block:
            spans[-1] = (spans[-1][0], block + 1)
        else:
            spans.append((block, block + 1))
    return spans


def shortlist(nodes: Mapping[PeerID, Announcement], most: int, chance: Random) -> list[PeerID]:
    """At most so many nodes that are worth meeting, but for every block the fastest, up to MAX_FASTEST; the likeliest
    first.

    By announced times, which are blurred by up to a half: or every client would meet the same few nodes.
    """
    blurred = [
        (node.decode_us / (node.stop - node.start) * chance.uniform(1, 1.5), peer) for peer, node in nodes.items()
    ]
    faster: Counter[int] = Counter()  # how many of those before serve each block
    ranked = []
    for block_us, peer in sorted(blurred):
        span = range(nodes[peer].start, nodes[peer].stop)
        ranked.append((min(faster[block] for block in span), block_us, peer))
        faster.update(span)
    ranked.sort()
    return [peer for at, (rank, _, peer) in enumerate(ranked) if at < most or (rank == 0 and at < MAX_FASTEST)]


def some_of(strangers: Mapping[PeerID, Announcement], most: int, chance: Random) -> list[PeerID]:
    """Half of them by what they announce, and half by chance: any number of false nodes may claim to be the fastest."""
    chosen = shortlist(strangers, most // 2, chance)
    others = sorted(strangers.keys() - set(chosen))
    return chosen + chance.sample(others, min(len(others), most - most // 2))
