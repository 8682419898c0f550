"""A session's route: its hops, which of them are whole, and what each must be told. No network here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from nectar_protocol.address import Address
from nectar_protocol.announcement import Profile
from nectar_protocol.errors import IdentityError
from nectar_protocol.identity import PeerID, parse_peer_id
from nectar_swarm.messages import Neighbours

from nectar.errors import ChosenRouteError, NoRoomError, NoRouteError, RequestError, UntrustedError
from nectar.repair import Span
from nectar.routing import Candidate, Leg, PeerSet, find_route, missing_spans

WAY = 0.2  # by how much more a node counts for where others must make way, with all that they then compute again


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
    profile: Profile = Profile.F32
    ledger: bytes = b""  # whose holds it takes

    @classmethod
    def of(cls, leg: Leg) -> "Hop":
        one = leg.candidate
        return cls(one.peer, one.addresses, leg.start, leg.stop, profile=one.profile, ledger=one.ledger)


class Route:
    """Hops that together run the blocks `part` of a model of so many `blocks`, or none yet.

    Only `trusted` peers, if given, run the model's first and last block, and only those of `chosen` run what it names
    them for. Every node needs `positions` of KV; where holds are taken, others make way for a session that `pays`.
    Raises RequestError for what is no route through the part.
    """

    def __init__(
        self,
        blocks: int,
        trusted: PeerSet | None = None,
        *,
        part: range | None = None,
        chosen: Sequence[Span] = (),
        pays: bool = False,
    ) -> None:
        part = range(blocks) if part is None else part
        self.blocks, self.start, self.stop, self.trusted = blocks, part.start, part.stop, trusted
        self.chosen = {span.peer: span for span in chosen}
        _check(chosen, part)
        self.pays, self.positions = pays, 0
        self._chance = Random()
        self.hops: list[Hop] = []
        self.generation = 0
        self.settled = 0  # up to which step a replay comes merged
        self.relayed: set[tuple[PeerID, PeerID]] = set()  # pairs that cannot meet; the client passes their frames on

    def hop(self, peer: PeerID) -> Hop | None:
        return next((hop for hop in self.hops if hop.peer == peer), None)

    def successor(self, hop: Hop) -> PeerID | None:
        """The node behind a hop; None behind the last."""
        at = self.hops.index(hop) + 1
        return self.hops[at].peer if at < len(self.hops) else None

    @property
    def complete(self) -> bool:
        return bool(self.hops) and not any(hop.failed for hop in self.hops)

    def prove_by(self, number: int) -> None:
        """Hops that are not whole yet will be, once this step or a later one is answered."""
        for hop in self.hops:
            if not hop.whole:
                hop.proof = number

    def settle(self, answered: int) -> list[Hop]:
        """Step `answered` has come through; returns the hops that are whole from now on."""
        proved = [hop for hop in self.hops if not hop.whole and 0 < hop.proof <= answered]
        for hop in proved:
            hop.whole = True
        return proved

    def _wanted(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whom this route may run through, each with the blocks that it may run."""
        if not self.chosen:
            return list(candidates)
        wanted = [(one, self.chosen[one.peer]) for one in candidates if one.peer in self.chosen]
        serving = [(one, span) for one, span in wanted if one.start <= span.start and span.stop <= one.stop]
        return [one.only(span.start, span.stop) for one, span in serving]

    def _has_room(self, candidate: Candidate) -> bool:
        """Who pays may hope for all KV that there is: a node says only what those may have who do not."""
        kv = candidate.kv_total if self.pays and candidate.ledger else candidate.kv_free
        return not self._is_busy(candidate) and (self._is_free(candidate) or kv is None or kv >= self.positions)

    def _is_busy(self, candidate: Candidate) -> bool:
        """Does it want to be left alone by such a session?"""
        return candidate.busy_from is not None and self.positions >= candidate.busy_from

    def _is_free(self, candidate: Candidate) -> bool:
        """Need nobody make way for us there, by what the node said?"""
        hop = self.hop(candidate.peer)
        ours = hop is not None and hop.opened and not hop.failed  # what we hold there would be free again
        return ours or candidate.kv_free is None or candidate.kv_free >= self.positions

    def _valued(self, candidate: Candidate) -> Candidate:
        """With what it costs that others make way."""
        if self._is_free(candidate):
            return candidate
        return replace(candidate, wait_s=candidate.wait_s + WAY * (candidate.enter_s + candidate.decode_s))

    def filled_by(self, candidates: Sequence[Candidate]) -> bool:
        """Do these serve, with room for us, every block that the present hops do not, trusted ones at both ends?"""
        nodes: list[Hop | Candidate] = [hop for hop in self.hops if not hop.failed]
        nodes += [one for one in self._wanted(candidates) if self._has_room(one)]
        trusted = [node for node in nodes if self.trusted is None or node.peer in self.trusted]
        ends = [block for block in (0, self.blocks - 1) if self.start <= block < self.stop]
        return not (
            missing_spans(nodes, self.start, self.stop)
            or any(missing_spans(trusted, block, block + 1) for block in ends)
        )

    def mend(self, candidates: Sequence[Candidate]) -> list[Hop]:
        """Keep the hops that work, fill the gaps with others that cost little, and return the hops that were dropped.

        Nodes without room are taken only if nobody else serves some block: they may know better than what they said.
        Raises NoRouteError, with the route as it was.
        """
        candidates = self._wanted(candidates)
        free = [one for one in candidates if not self._is_busy(one)]
        try:
            hops = self._mended([self._valued(one) for one in free if self._has_room(one)])
        except NoRouteError:
            try:
                hops = self._mended(free)
            except NoRouteError as error:
                raise self._explained(error, candidates) from error
        dropped = [hop for hop in self.hops if hop not in hops]
        self.hops = hops
        return dropped

    def _explained(self, error: NoRouteError, candidates: Sequence[Candidate]) -> NoRouteError:
        """The same error, or that those who serve what is missing are busy."""
        trusted = self.trusted if isinstance(error, UntrustedError) else None
        busy = [
            f"{one.kv_free or 0} on {one.peer[-6:]}"
            for one in candidates
            if (trusted is None or one.peer in trusted)
            and any(one.start < stop and start < one.stop for start, stop in error.missing)
        ]
        if not busy:
            return ChosenRouteError(error.missing) if self.chosen and trusted is None else error
        return NoRoomError(error.missing, f": {self.positions} positions are wanted, and free are {', '.join(busy)}")

    def _mended(self, candidates: Sequence[Candidate]) -> list[Hop]:
        """The hops that work with the gaps between them filled.

        When the gaps can only be filled by a node that is in the route already, or not beside what is kept, all is
        routed anew. Raises NoRouteError.
        """
        kept = [hop for hop in self.hops if not hop.failed]
        peers = {hop.peer for hop in kept}
        try:
            return self._fill(kept, [candidate for candidate in candidates if candidate.peer not in peers])
        except NoRouteError:
            if not kept:
                raise
            return self._find(candidates, self.start, self.stop)

    def _fill(self, kept: Sequence[Hop], candidates: Sequence[Candidate]) -> list[Hop]:
        hops: list[Hop] = []
        block = self.start
        for hop in [*kept, None]:
            stop = hop.start if hop else self.stop
            if block < stop:
                taken = {hop.peer for hop in hops}  # by an earlier gap
                free = [candidate for candidate in candidates if candidate.peer not in taken]
                hops += self._find(free, block, stop)
            if hop:
                hops.append(hop)
                block = hop.stop
        return hops

    def _find(self, candidates: Sequence[Candidate], start: int, stop: int) -> list[Hop]:
        ends = start == 0, stop == self.blocks
        legs = find_route(candidates, start, stop, trusted=self.trusted, ends=ends, chance=self._chance)
        return [Hop.of(leg) for leg in legs]

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


def _check(chosen: Sequence[Span], part: range) -> None:
    """Raises RequestError unless these lead through the part, each node once."""
    if not chosen:
        return
    try:
        for span in chosen:
            parse_peer_id(span.peer)
    except IdentityError as error:
        raise RequestError(f"a route names nodes by their peer IDs, 12D3KooW…: {error}") from error
    bounds = [part.start, *(span.stop for span in chosen)]
    follow = all(span.start == before < span.stop for span, before in zip(chosen, bounds, strict=False))
    if not follow or bounds[-1] != part.stop or len({span.peer for span in chosen}) < len(chosen):
        shown = ", ".join(f"{span.start}:{span.stop}" for span in chosen)
        raise RequestError(f"a route must lead through blocks {part.start}:{part.stop}, each node once; not {shown}")
