"""Who serves which blocks of a model, how fast, and what changes when nodes move. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import PublicKey

from nectar_node.placement import rates

SAME_RATE = 0.05

Moves = Mapping[PublicKey, int]  # the new first block of each node that goes elsewhere


@dataclass(frozen=True)
class Seat:
    """A node at blocks [start, start + length), with `rate` tokens per second through each."""

    node: PublicKey
    start: int
    length: int
    rate: float
    movable: bool

    @property
    def span(self) -> range:
        return range(self.start, self.start + self.length)


class Layout:
    """Nodes at their blocks. `throughput` and `nodes` are, for each block, the sum of the rates, and how many serve."""

    def __init__(self, seats: Mapping[PublicKey, Seat], throughput: Sequence[float], nodes: Sequence[int]) -> None:
        self.seats, self.throughput, self.nodes = seats, throughput, nodes

    @classmethod
    def of(cls, announcements: Iterable[Announcement], blocks: int) -> "Layout":
        """The nodes that serve, or will once they have loaded; in an order that is the same for everybody."""
        present = [a for a in announcements if a.state is not NodeState.LEAVING and a.start < blocks]
        seats = {}
        for a, rate in sorted(zip(present, rates(present), strict=True), key=lambda pair: pair[0].node):
            movable = a.state in (NodeState.SERVING, NodeState.MOVING)
            seats[a.node] = Seat(a.node, a.start, min(a.stop, blocks) - a.start, rate, movable)
        empty = cls({}, [0.0] * blocks, [0] * blocks)
        return empty._changed(seats, (), seats.values())

    @property
    def blocks(self) -> int:
        return len(self.nodes)

    @property
    def quality(self) -> tuple[int, float]:
        """The greater the better: minus the blocks that nobody serves; the bottleneck, which is the worst block's
        throughput.
        """
        return -sum(not count for count in self.nodes), min(self.throughput)

    def after(self, moves: Moves) -> "Layout":
        """The same nodes when these have moved."""
        old = [self.seats[node] for node in moves]
        new = [replace(seat, start=moves[seat.node]) for seat in old]
        return self._changed({**self.seats, **{seat.node: seat for seat in new}}, old, new)

    def resembles(self, other: "Layout") -> bool:
        """The same nodes at the same places, about as fast?"""
        if self.seats.keys() != other.seats.keys():
            return False
        pairs = [(seat, other.seats[node]) for node, seat in self.seats.items()]
        return all(
            (a.span, a.movable) == (b.span, b.movable) and abs(a.rate - b.rate) <= SAME_RATE * b.rate for a, b in pairs
        )

    def may_leave(self, node: PublicKey) -> bool:
        """Is each of a node's blocks served by another too?"""
        return all(self.nodes[block] > 1 for block in self.seats[node].span)

    def _changed(self, seats: Mapping[PublicKey, Seat], less: Iterable[Seat], more: Iterable[Seat]) -> "Layout":
        throughput, nodes = list(self.throughput), list(self.nodes)
        for sign, some in ((-1, less), (1, more)):
            for seat in some:
                for block in seat.span:
                    nodes[block] += sign
                    throughput[block] = throughput[block] + sign * seat.rate if nodes[block] else 0.0
        return Layout(seats, throughput, nodes)
