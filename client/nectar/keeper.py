"""Keeps a session's route whole: opens it, mends it when nodes are lost, moves away from nodes that leave.

After every change each hop is told its place anew, under a higher generation, and confirms it.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import SwarmError
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open

from nectar.connection import Connection, Listener
from nectar.errors import ClientError, NoRouteError, PaymentError, SessionError
from nectar.repair import Repair, Span
from nectar.route import Hop, Route
from nectar.routing import Candidate
from nectar.scout import Effort

ROUTED_S = 6.0
RETRY_S = 0.2
HUNG_MS = 600_000
MAX_REPAIRS = 32  # for one step: nodes that break the route more often do so on purpose
MAX_REASONS = 16
MISSED_S = 0.05  # how long the end of our own link to a node is waited for, when its neighbour has lost it
AGAIN_S = 3.0  # after which nodes have refused whatever was on its way to a node that was lost

log = logging.getLogger(__name__)


class Owner(Listener, Protocol):
    """The session whose route this is."""

    def opening(self, hop: Hop, place: Neighbours) -> Open:
        """What a node is asked when its hop is new."""
        ...

    async def prepare(self) -> None:
        """The route's hops are known, and new ones are opened next. Raises PaymentError where nothing may be."""

    def on_renumbered(self, before: int) -> None:
        """No node goes on with the session under this number, and it has another now."""

    def on_placed(self) -> None:
        """All hops have been told their places, though none may have confirmed its own."""
        ...

    def on_trouble(self) -> None:
        """The route is broken; whoever waits for it must call `ensure`."""


class RouteKeeper:
    """Lives in the connection's loop. `number` is the session's, new whenever none of its nodes goes on with it.

    `broken`: the route must be mended before anything goes on. `news` is set by trouble, by confirmations, and by
    whoever else has something that the session waits for.
    """

    def __init__(self, connection: Connection, owner: Owner, model: ModelID, route: Route) -> None:
        self.number = connection.add(owner)
        self.route = route
        self.repairs: list[Repair] = []
        self.news = asyncio.Event()
        self.broken = False
        self._connection, self._owner, self._model = connection, owner, model
        self._missed: set[PeerID] = set()  # by their neighbours, and not by us yet
        self._lost_s: dict[PeerID, float] = {}  # when nodes left this session, for whatever reason
        self._reasons: deque[str] = deque(maxlen=MAX_REASONS)
        self._repaired_for = self._repairs = 0  # a step, and how often the route was mended for it

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(Span(hop.peer, hop.start, hop.stop) for hop in self.route.hops)

    @property
    def ready(self) -> bool:
        """Is there a whole route, and does nobody want to leave it?"""
        return self.route.complete and not self.broken and not any(hop.leaving for hop in self.route.hops)

    async def ensure(self, last: int, answered: int, patience_s: float) -> None:
        """Return with a whole route.

        `last` is the newest step's number, `answered` that of the last answered one. Raises NoRouteError or
        SessionError when patience is over, or when the route has broken too often; PaymentError at once.
        """
        started_s, before = time.monotonic(), self.spans
        if self.ready or (self.route.complete and not self.broken and not await self._leave_behind()):
            return
        self._count_repair(last)
        effort = Effort.AT_HAND if before else Effort.MEET
        failure: Exception = SessionError("no node answered")
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    try:
                        await self._mend(last, answered, effort)
                        break
                    except PaymentError:
                        raise
                    except (ClientError, SwarmError) as error:
                        failure = error
                    if effort is Effort.FORGIVE:
                        await asyncio.sleep(RETRY_S)
                    if not isinstance(failure, SessionError):  # else one more node failed; others are at hand
                        effort = Effort(min(effort + 1, Effort.FORGIVE))
        except TimeoutError as error:
            raise self._final(failure, patience_s) from error
        if before:
            self.repairs.append(Repair(tuple(self._reasons), before, self.spans, time.monotonic() - started_s))
        self._reasons.clear()

    def _count_repair(self, last: int) -> None:
        """Raises SessionError if there were too many for this step."""
        if last != self._repaired_for:
            self._repaired_for, self._repairs = last, 0
        self._repairs += 1
        if self._repairs > MAX_REPAIRS:
            raise SessionError(f"the route broke {MAX_REPAIRS} times in one step; last: {self._newest_reasons}")

    @property
    def _newest_reasons(self) -> str:
        return "; ".join(list(self._reasons)[-3:])

    async def _leave_behind(self) -> bool:
        """Replace nodes that said they will leave; False if nobody can, and they are used until they go."""
        leaving = [hop for hop in self.route.hops if hop.leaving]
        for hop in leaving:
            self._lose(hop)
        try:
            candidates = await self._candidates(Effort.LOOK_AGAIN)
            gone = {hop.peer for hop in leaving}  # the directory may not have heard of it yet
            self._replace([one for one in candidates if one.peer not in gone])
        except (ClientError, SwarmError):
            for hop in leaving:
                hop.failed = hop.leaving = False
            return False
        for hop in leaving:
            self.note(f"{hop.peer[-6:]} (blocks {hop.start}:{hop.stop}) leaves")
        return True

    async def _mend(self, last: int, answered: int, effort: Effort) -> None:
        """One attempt at a whole route, confirmed by all its hops. Raises ClientError or SwarmError."""
        candidates: Sequence[Candidate] = ()
        await self._wait_for_ends()
        if not self._still_complete():
            candidates = await self._candidates(effort)
        self.broken = False
        if not self._still_complete():
            self._replace(candidates)
        await self._owner.prepare()
        self.route.generation += 1
        self._give_places(answered)
        self._owner.on_placed()
        await self._wait_until_routed()
        # In the first generation the answer to the present step proves all hops whole; later one only the next does,
        # since the present one may have been on its way behind the hop that was replaced.
        self.route.prove_by(last if self.route.generation == 1 else last + 1)

    async def _wait_for_ends(self) -> None:
        """If a neighbour's link to a node ended because the node died, ours will have ended in a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MISSED_S if self._missed else None):
                while any(hop.peer in self._missed and not hop.failed for hop in self.route.hops):
                    self.news.clear()
                    await self.news.wait()
        self._missed.clear()

    def settle(self, answered: int) -> None:
        """Step `answered` has come through: whoever proved to have it has made up for earlier failures."""
        for hop in self.route.settle(answered):
            self._connection.view.trust_again(hop.peer)

    async def _candidates(self, effort: Effort) -> list[Candidate]:
        """Raises SwarmError."""
        return await self._connection.scout.candidates(
            self._model,
            effort,
            trusted=(self.route.trusted or frozenset()) | self.route.chosen.keys(),
            enough=self.route.filled_by,
        )

    def _still_complete(self) -> bool:
        """Is the route complete, if hops without a link are lost?"""
        for hop in self.route.hops:
            if self._connection.present_link(hop.peer) is None:
                self._lose(hop)
        return self.route.complete

    def _lose(self, hop: Hop) -> None:
        if not hop.failed:
            hop.failed = True
            self._lost_s[hop.peer] = time.monotonic()

    def _replace(self, candidates: Sequence[Candidate]) -> None:
        """Fill the route's gaps, and close the session on nodes that are no longer in it. Raises NoRouteError.

        A node that was lost may be back, but must not take what its neighbours sent to it before for what they send
        now. So it is left out for a while, or gets the session under a new number if no other node keeps it.
        """
        if any(not hop.failed for hop in self.route.hops):
            past_s = time.monotonic() - AGAIN_S
            candidates = [one for one in candidates if self._lost_s.get(one.peer, past_s) <= past_s]
        dropped = self.route.mend(candidates)
        for hop in dropped:
            if link := self._connection.present_link(hop.peer):
                link.send(self.number, Kind.CLOSE)
        if dropped and not any(hop.opened for hop in self.route.hops):
            before = self.number
            self._connection.remove(before)
            self.number = self._connection.add(self._owner)
            self._lost_s.clear()
            self._owner.on_renumbered(before)

    def _give_places(self, answered: int) -> None:
        for hop, place in zip(self.route.hops, self.route.places(answered), strict=True):
            link = self._connection.present_link(hop.peer)
            if link is None:
                self.fail(hop, "has closed its link")
            elif hop.opened:
                link.send(self.number, Kind.REROUTE, place.pack())
            else:
                link.send(self.number, Kind.OPEN, self._owner.opening(hop, place).pack())
                hop.opened = True

    async def _wait_until_routed(self) -> None:
        """Raises SessionError if the route breaks meanwhile or some hop does not confirm its place in time."""
        generation = self.route.generation
        try:
            async with asyncio.timeout(ROUTED_S):
                while any(hop.routed < generation for hop in self.route.hops):
                    if self.broken:
                        raise SessionError(self._newest_reasons)
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError as error:
            for hop in self.route.hops:
                if hop.routed < generation:
                    self.fail(hop, f"did not confirm its place within {ROUTED_S:g} s")
            raise SessionError(self._newest_reasons) from error
        if self.broken:
            raise SessionError(self._newest_reasons)

    def _final(self, error: Exception, patience_s: float) -> ClientError:
        if isinstance(error, NoRouteError):
            lost = f"; lost: {self._newest_reasons}" if self._reasons else ""
            return type(error)(error.missing, f"{error.hint} (waited {patience_s:g} s{lost})")
        return SessionError(f"no route for this session within {patience_s:g} s: {error}")

    def check_computing(self) -> bool:
        """Does any node of the route compute? One that has for ten minutes counts as hung and is replaced."""
        computing = False
        for hop in self.route.hops:
            link = self._connection.present_link(hop.peer)
            if link is not None and link.busy_ms > HUNG_MS:
                self.fail(hop, f"has computed for {link.busy_ms / 60_000:.0f} minutes")
            computing = computing or (link is not None and link.busy_ms > 0)
        return computing

    def fail(self, hop: Hop, reason: str, *, aside: bool = True) -> None:
        self._lose(hop)
        if aside:
            self._connection.view.set_aside(hop.peer)
        self.note(f"{hop.peer[-6:]} (blocks {hop.start}:{hop.stop}) {reason}")

    def restart(self, reason: str) -> None:
        """Open the session anew on all nodes: they have done nothing wrong."""
        for hop in self.route.hops:
            self._lose(hop)
        self.note(reason)

    def note(self, reason: str) -> None:
        log.info("session: %s", reason)
        self._reasons.append(reason)
        self.broken = True
        self.news.set()
        self._owner.on_trouble()

    def on_routed(self, hop: Hop, generation: int) -> None:
        if generation <= self.route.generation:  # else it was never told that place
            hop.routed = max(hop.routed, generation)
            self.news.set()

    def on_error(self, hop: Hop, error: Error) -> SessionError | None:
        """What a hop's refusal means for the route; the error to raise if it is about the step itself."""
        about_link = error.code in (ErrorCode.UNREACHABLE, ErrorCode.LOST)
        if error.generation and error.generation != self.route.generation and (about_link or hop.routed):
            return None  # about a place that was changed since
        match error.code:
            case ErrorCode.UNREACHABLE | ErrorCode.LOST if error.peer not in (None, self.route.successor(hop)):
                log.info("%s tells of a neighbour that it does not have", hop.peer)
            case ErrorCode.UNREACHABLE if error.peer is not None:
                self.route.relayed.add((hop.peer, error.peer))
                self.note(f"{hop.peer[-6:]} cannot reach {error.peer[-6:]}; their link runs through us now")
            case ErrorCode.LOST if error.peer is not None:
                self._on_lost(hop, error.peer, error.text)
            case ErrorCode.LEAVING if not error.generation:
                hop.leaving = True
            case ErrorCode.MALFORMED | ErrorCode.OUT_OF_RANGE if not error.generation:
                return SessionError(f"{hop.peer} refused a step: {error.text}")
            case ErrorCode.DENIED if not error.generation:
                log.info("%s refused a step that came too late", hop.peer)
            case ErrorCode.BUSY:
                self._connection.view.leave_alone(hop.peer, error.retry_after_ms / 1000, self.route.positions)
                self.fail(hop, f"refused: {error.text}", aside=False)
            case ErrorCode.EXPIRED | ErrorCode.UNPAID:
                self.fail(hop, "ended the session: " + error.text, aside=False)
            case _:
                self.fail(hop, f"refused: {error.text}")
        return None

    def _on_lost(self, hop: Hop, successor: PeerID, text: str) -> None:
        """Two that have not heard of a node need not wait for its end; what only one has lost may be their link."""
        link, lost = self._connection.present_link(successor), self.route.hop(successor)
        if lost is not None and link is not None and link.suspected:
            self.fail(lost, "is silent")
        self._missed.add(successor)
        self.note(f"{hop.peer[-6:]} lost {successor[-6:]}: {text}")

    def on_dead(self, peer: PeerID, reason: str) -> None:
        if (hop := self.route.hop(peer)) is not None and not hop.failed:
            self._lose(hop)
            self.note(f"{peer[-6:]} (blocks {hop.start}:{hop.stop}) {reason}")
