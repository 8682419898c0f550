"""Which nodes a session should run through: the chain of least expected latency. Pure functions.

The cost of a chain is the time of one decoded token. A link between two nodes is not known to us and taken as the mean
of ours to each, so that every node adds half of its round trip from here and its measured time for its share of
blocks, and the search is a walk over blocks instead of pairs of nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nectar_protocol.address import Address
from nectar_protocol.identity import PeerID

from nectar.errors import NoRouteError

HOP_S = 0.001  # what a node costs beyond its link and its computing: frames, wake-ups


@dataclass(frozen=True)
class Candidate:
    """A node that serves blocks [start, stop): `decode_s` for a token through all of them, `rtt_s` from here."""

    peer: PeerID
    addresses: tuple[Address, ...]
    start: int
    stop: int
    decode_s: float
    rtt_s: float

    @property
    def block_s(self) -> float:
        return self.decode_s / (self.stop - self.start)


@dataclass(frozen=True)
class Leg:
    """Blocks [start, stop) of a route, on one node."""

    candidate: Candidate
    start: int
    stop: int


@dataclass(frozen=True)
class _Way:
    """The cheapest way found to be at a block, inside `candidate`."""

    cost_s: float
    candidate: Candidate
    entered: int
    before: "_Way | None"


def find_route(candidates: Sequence[Candidate], start: int, stop: int) -> list[Leg]:
    """The cheapest chain through blocks [start, stop). Raises NoRouteError with the spans nobody serves."""
    done: _Way | None = None  # the cheapest way to have finished all blocks before the present one
    inside: dict[PeerID, _Way] = {}  # the cheapest way that ends in each node which served the block before
    for block in range(start, stop):
        reached: dict[PeerID, _Way] = {}
        for candidate in candidates:
            if not candidate.start <= block < candidate.stop:
                continue
            cost_s = (done.cost_s if done else 0.0) + candidate.rtt_s / 2 + HOP_S
            best = _Way(cost_s, candidate, block, done)
            if (stay := inside.get(candidate.peer)) is not None and stay.cost_s <= cost_s:
                best = stay
            reached[candidate.peer] = replace(best, cost_s=best.cost_s + candidate.block_s)
        if not reached:
            raise NoRouteError(missing_spans(candidates, start, stop))
        inside = reached
        done = min(reached.values(), key=lambda way: way.cost_s)
    return _legs(done, stop)


def _legs(way: _Way | None, stop: int) -> list[Leg]:
    """The way as legs, first to last; a node that it enters twice runs all that lies between, which it serves too."""
    legs: list[Leg] = []
    while way is not None:
        again = next((at for at, leg in enumerate(legs) if leg.candidate == way.candidate), None)
        if again is not None:
            stop = legs[again].stop
            del legs[: again + 1]
        legs.insert(0, Leg(way.candidate, way.entered, stop))
        stop, way = way.entered, way.before
    return legs


def missing_spans(candidates: Sequence[Candidate], start: int, stop: int) -> list[tuple[int, int]]:
    """The spans of [start, stop) that no candidate serves."""
    spans: list[tuple[int, int]] = []
    for block in range(start, stop):
        if any(candidate.start <= block < candidate.stop for candidate in candidates):
            continue
        if spans and spans[-1][1] == block:
            spans[-1] = (spans[-1][0], block + 1)
        else:
            spans.append((block, block + 1))
    return spans
