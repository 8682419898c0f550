"""A session's route: its hops, which of them are whole, and what each must be told. No network here."""

from collections.abc import Sequence
from dataclasses import dataclass

from nectar_protocol.address import Address
from nectar_protocol.identity import PeerID
from nectar_swarm.messages import Neighbours

from nectar.errors import NoRouteError
from nectar.routing import Candidate, Leg, find_route


@dataclass(eq=False)
class Hop:
    """One node of the route, running blocks [start, stop).

    `opened`: the node was asked for the session. `whole`: it also has every step that was answered, so that its
    predecessor need not replay; known once step `proof` is answered. `failed`: it must be replaced.
    """

    peer: PeerID
    addresses: tuple[Address, ...]
    start: int
    stop: int
    opened: bool = False
    whole: bool = False
    failed: bool = False
    leaving: bool = False
    proof: int = 0
    routed: int = 0  # the generation of the last place that it confirmed

    @classmethod
    def of(cls, leg: Leg) -> "Hop":
        return cls(leg.candidate.peer, leg.candidate.addresses, leg.start, leg.stop)


class Route:
    """Hops that together run all blocks, or none yet."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.hops: list[Hop] = []
        self.generation = 0
        self.settled = 0  # up to which step a replay comes merged
        self.relayed: set[tuple[PeerID, PeerID]] = set()  # pairs that cannot meet; the client passes their frames on

    def hop(self, peer: PeerID) -> Hop | None:
        return next((hop for hop in self.hops if hop.peer == peer), None)

    @property
    def complete(self) -> bool:
        return bool(self.hops) and not any(hop.failed for hop in self.hops)

    def prove_by(self, number: int) -> None:
        """Hops that are not whole yet will be, once this step or a later one is answered."""
        for hop in self.hops:
            if not hop.whole:
                hop.proof = number

    def settle(self, answered: int) -> None:
        """Step `answered` has come through."""
        for hop in self.hops:
            hop.whole = hop.whole or 0 < hop.proof <= answered

    def mend(self, candidates: Sequence[Candidate]) -> list[Hop]:
        """Keep the hops that work, fill the gaps with the cheapest others, and return the hops that were dropped.

        When the gaps can only be filled by a node that is in the route already, or not beside what is kept, all is
        routed anew. Raises NoRouteError, with the route as it was.
        """
        kept = [hop for hop in self.hops if not hop.failed]
        peers = {hop.peer for hop in kept}
        others = [candidate for candidate in candidates if candidate.peer not in peers]
        try:
            hops = self._fill(kept, others)
        except NoRouteError:
            if not kept:
                raise
            hops = [Hop.of(leg) for leg in find_route(candidates, 0, self.blocks)]
        dropped = [hop for hop in self.hops if hop not in hops]
        self.hops = hops
        return dropped

    def _fill(self, kept: Sequence[Hop], candidates: Sequence[Candidate]) -> list[Hop]:
        hops: list[Hop] = []
        block = 0
        for hop in [*kept, None]:
            stop = hop.start if hop else self.blocks
            if block < stop:
                taken = {hop.peer for hop in hops}  # by an earlier gap
                free = [candidate for candidate in candidates if candidate.peer not in taken]
                hops += [Hop.of(leg) for leg in find_route(free, block, stop)]
            if hop:
                hops.append(hop)
                block = hop.stop
        return hops

    def places(self, answered: int) -> list[Neighbours]:
        """What each hop must be told in the present generation, when steps up to `answered` have been answered.

        A hop that has been sent part of a replay is sent the rest as it was merged then: its rows are in the order
        that they had after that `settled`.
        """
        if not any(hop.opened and not hop.whole for hop in self.hops):
            self.settled = answered
        return [
            Neighbours(
                generation=self.generation,
                prev=None if self._through_client(at - 1) else self.hops[at - 1].peer,
                next=None if self._through_client(at) else self.hops[at + 1].peer,
                next_addresses=() if self._through_client(at) else self.hops[at + 1].addresses,
                sent=answered if at + 1 == len(self.hops) or self.hops[at + 1].whole else 0,
                settled=self.settled,
            )
            for at in range(len(self.hops))
        ]

    def _through_client(self, at: int) -> bool:
        """Does what hop `at` sends go to the client: because it is the last, or cannot meet the next?"""
        if not 0 <= at < len(self.hops) - 1:
            return True
        return (self.hops[at].peer, self.hops[at + 1].peer) in self.relayed
