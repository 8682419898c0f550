"""What a session's user may know of its route and of what became of it."""

from dataclasses import dataclass

from nectar_protocol.identity import PeerID


@dataclass(frozen=True)
class Span:
    """Blocks [start, stop) on one node of a session's route."""

    peer: PeerID
    start: int
    stop: int


@dataclass(frozen=True)
class Repair:
    """One change of a route: what was lost and why, the route before and after, and how long it took."""

    lost: tuple[str, ...]
    before: tuple[Span, ...]
    after: tuple[Span, ...]
    seconds: float
