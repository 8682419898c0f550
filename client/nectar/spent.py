"""What a session has cost."""

from dataclasses import dataclass

from nectar_protocol.identity import PeerID


@dataclass(frozen=True)
class NodeSpent:
    """What one node has been promised: units of work, and what they cost in µcr."""

    peer: PeerID
    units: int
    ucr: int


@dataclass(frozen=True)
class Spent:
    """By node, all that both sides have signed."""

    nodes: tuple[NodeSpent, ...] = ()

    @property
    def units(self) -> int:
        return sum(node.units for node in self.nodes)

    @property
    def ucr(self) -> int:
        return sum(node.ucr for node in self.nodes)
