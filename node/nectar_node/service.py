"""The node's side of the wire: the table of sessions between the links and the engine.

The client OPENs every node of a route on its own link to it. STEPs then run from node to node; a step is taken only
from the peer that libp2p has authenticated as the session's predecessor. What a node sends it keeps, and a REROUTE
makes it send that again to a replacement.
"""

import asyncio
import logging
from collections.abc import Callable

import torch
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import SwarmError
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Routed, Step
from nectar_swarm.peers import Peers
from nectar_swarm.waiting import first_of

from nectar_node.about import About
from nectar_node.admission import Admission
from nectar_node.archive import Archive
from nectar_node.dials import Dials
from nectar_node.errors import FullError, PaymentError, RecordError, StepError
from nectar_node.parking import Parked, Parking
from nectar_node.pipeline import start_computing
from nectar_node.refusals import code_of, misfit, turned_away
from nectar_node.scheduler import Work
from nectar_node.session import Session
from nectar_node.stage import Loaded
from nectar_node.till.desk import Desk
from nectar_node.till.till import Till

IDLE_S = 15 * 60.0
SWEEP_S = 5.0
COMPUTE_END_S = 10.0

log = logging.getLogger(__name__)


class Service:
    """Serves one span to any number of sessions, over the links of `peers`."""

    def __init__(
        self,
        host: Host,
        loaded: Loaded,
        archive: Archive,
        model: ModelID,
        about: About,
        *,
        till: Till | None = None,
        allowed: frozenset[PeerID] | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.loaded, self.model, self.about = loaded, model, about
        self.leaving = False
        self.emptied = asyncio.Event()
        self._sessions: dict[int, Session] = {}
        self._loop = asyncio.get_running_loop()
        self._engine, store = start_computing(loaded, self._deliver)
        self.admission = Admission(
            store, archive, self._engine, loaded.width, self._sessions.values, self._expire, self._loop.time
        )
        self._parking = Parking(self._refuse)
        self.peers = Peers(host, self, allowed=allowed, busy_ms=self._engine.busy_ms, delay_s=delay_s)
        self._dials = Dials(self.peers)
        self._desk = Desk(till, self._engine.submit, self._sessions, self.peers.link, self._end)
        self._handlers: dict[Kind, Callable[[Link, int, bytes], None]] = {
            Kind.OPEN: self._open,
            Kind.REROUTE: self._reroute,
            Kind.STEP: self._step,
            Kind.CLOSE: self._close,
            Kind.ASK: self._answer,
            Kind.COUNTERSIGN: self._desk.countersign,
            Kind.HOLD: self._desk.extend,
            Kind.HISTORY: self._desk.ask,
        }
        self._sweeper = asyncio.create_task(self._sweep())

    async def start(self) -> None:
        await self.peers.start()

    async def drain(self, timeout_s: float) -> int:
        """Take no more sessions, ask the present ones to move, and wait until they have; returns how many did not."""
        self.leaving = True
        for session in self._sessions.values():
            self._tell(session, Error(ErrorCode.LEAVING, "this node is about to leave"))
        if self._sessions:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.emptied.wait()
            except TimeoutError:
                log.warning("leaving with %d sessions", len(self._sessions))
        return len(self._sessions)

    async def close(self) -> None:
        self._sweeper.cancel()
        for session in list(self._sessions.values()):
            self._forget(session)
        await self._desk.stop()
        self._engine.stop()
        await first_of(self._engine.join(), timeout_s=COMPUTE_END_S)
        await self.peers.close()

    # Links

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            return  # ROUTED and ERROR are for clients; a node has no use for them
        try:
            handler(link, session, payload)
        except (MalformedError, StepError, PaymentError) as error:
            refusal = Error(code_of(error), str(error))
            link.send(session, Kind.ERROR, refusal.pack(link.version))
            known = self._sessions.get(session)
            if known is not None and link.peer == known.predecessor:  # else a stranger could end it
                if link.peer != known.owner:
                    self._tell(known, refusal)
                if isinstance(error, FullError | RecordError):
                    self._forget(known)

    def on_dead(self, peer: PeerID, reason: str) -> None:
        for session in list(self._sessions.values()):
            if session.owner == peer:
                self._forget(session)
            elif session.neighbours.next == peer:
                session.successor = None  # until the client says who is next
                self._tell(session, Error(ErrorCode.LOST, f"{peer} {reason}", session.neighbours.generation, peer))

    # Messages

    def _open(self, link: Link, number: int, payload: bytes) -> None:
        request = Open.unpack(payload)
        generation = request.neighbours.generation
        refusal = self._reason_to_refuse(request, number)
        if refusal is None:
            try:
                paid = self._desk.check(link, number, request)
                kv, record = self.admission.admit(request, link.peer)
            except (PaymentError, FullError) as error:
                refusal = code_of(error), str(error)
        if refusal is not None:
            link.send(number, Kind.ERROR, turned_away(*refusal, generation).pack(link.version))
            return
        session = Session(number, link.peer, request, kv, record, self._loop.time(), self._fail)
        self._sessions[number] = session
        if paid is not None:
            self._desk.enter(session, paid)
        self.emptied.clear()
        self._place(session, request.neighbours)

    def _reason_to_refuse(self, request: Open, number: int) -> tuple[ErrorCode, str] | None:
        if self.leaving:
            return ErrorCode.LEAVING, "this node is about to leave"
        if number in self._sessions:
            return ErrorCode.DENIED, "this session number is taken"
        return misfit(request, self.model, *self.loaded.blocks)

    def _reroute(self, link: Link, number: int, payload: bytes) -> None:
        neighbours = Neighbours.unpack(payload)
        session = self._owned(link, number, neighbours.generation)
        if session and neighbours.generation > session.neighbours.generation:
            self._place(session, neighbours)

    def _step(self, link: Link, number: int, payload: bytes) -> None:
        session = self._sessions.get(number)
        if session is None or link.peer != session.predecessor:
            self._parking.park(link.peer, number, payload)
            return
        step = Step.unpack(payload)
        session.used_s = self._loop.time()
        self._desk.check_step(session, step)
        if session.accept(step, self.loaded.width):
            if session.kv is None:
                self.admission.restore(session)
            stored = session.receive(step)
            batch, tokens, _ = step.hidden.shape
            numbers = step.first, step.last
            replay = step.first < step.last
            work = Work(session, session.kv, step.position, batch, tokens, stored, step.reorder, numbers, replay)
            submit = self._engine.submit if session.account is None else session.account.enter
            submit(work)

    def _close(self, link: Link, number: int, payload: bytes) -> None:
        session = self._sessions.get(number)
        if session is not None and session.owner == link.peer:
            self._desk.close(session)
            self._forget(session)

    def _answer(self, link: Link, number: int, payload: bytes) -> None:
        sessions = len(self._sessions)
        status = self.about.status(self.loaded, self._engine, self.admission, sessions, self._desk.ledger)
        link.send(number, Kind.STATUS, status.pack(link.version))

    def _owned(self, link: Link, number: int, generation: int) -> Session | None:
        session = self._sessions.get(number)
        if session is not None and session.owner == link.peer:
            return session
        error = Error(ErrorCode.UNKNOWN_SESSION, "there is no such session of yours here", generation)
        link.send(number, Kind.ERROR, error.pack(link.version))
        return None

    # A session's place in its route

    def _place(self, session: Session, neighbours: Neighbours) -> None:
        """Take these neighbours. Until the successor's link is there, outputs wait in the history."""
        session.neighbours = neighbours
        session.sent = neighbours.sent
        session.successor = None
        if session.joining is not None:
            session.joining.cancel()
        session.joining = asyncio.create_task(self._join(session, neighbours))
        for payload in self._parking.take(session.number, session.predecessor):
            if link := self.peers.link(session.predecessor):
                self.on_message(link, session.number, Kind.STEP, payload)

    async def _join(self, session: Session, neighbours: Neighbours) -> None:
        if neighbours.next is None:
            session.successor = self.peers.link(session.owner)
        else:
            try:
                session.successor = await self._dials.connect(session.owner, neighbours.next, neighbours.next_addresses)
            except SwarmError as error:
                unreachable = Error(ErrorCode.UNREACHABLE, str(error), neighbours.generation, neighbours.next)
                self._tell(session, unreachable)
                return
        if owner := self.peers.link(session.owner):
            owner.send(session.number, Kind.ROUTED, Routed(neighbours.generation).pack())
        session.pump()

    # Results

    def _deliver(self, work: Work, result: torch.Tensor | Exception) -> None:
        session, numbers = work.flow, work.tag
        assert isinstance(session, Session), "works are submitted for sessions"
        session.waiting -= numbers is not None
        if session.closed:
            return
        if isinstance(result, Exception):
            log.error("a step of a session failed", exc_info=result)
            self._end(session, Error(ErrorCode.FAILED, f"the computation failed: {type(result).__name__}"))
        elif numbers is not None:  # None: what was evicted and computed again was sent before
            try:
                first, last = numbers
                hidden = result.to(session.request.dtype)
                session.history.append(Step(first, last, work.position, hidden, work.reorder))
            except FullError as error:
                self._fail(session, error)
                return
            session.pump()
            if session.account is not None:
                session.account.computed(work, hidden)

    # Housekeeping

    def _tell(self, session: Session, error: Error) -> None:
        if owner := self.peers.link(session.owner):
            owner.send(session.number, Kind.ERROR, error.pack(owner.version))

    def _fail(self, session: Session, error: StepError) -> None:
        self._end(session, Error(code_of(error), str(error)))

    def _end(self, session: Session, error: Error | None) -> None:
        if error is not None:
            self._tell(session, error)
        self._forget(session)

    def _refuse(self, parked: Parked) -> None:
        if link := self.peers.link(parked.peer):
            code = ErrorCode.DENIED if parked.session in self._sessions else ErrorCode.UNKNOWN_SESSION
            error = Error(code, "you are not this session's predecessor here")
            link.send(parked.session, Kind.ERROR, error.pack(link.version))

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.number, None)
        session.closed = True
        if session.joining is not None:
            session.joining.cancel()
        self._desk.forget(session)
        self.admission.dismiss(session)
        if not self._sessions:
            self.emptied.set()

    def _expire(self, session: Session) -> None:
        idle_s = self._loop.time() - session.used_s
        self._end(session, Error(ErrorCode.EXPIRED, f"unused for {idle_s:.0f} s"))

    async def _sweep(self) -> None:
        """Close sessions that nobody has used for a quarter of an hour."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for session in list(self._sessions.values()):
                if self._loop.time() - session.used_s > IDLE_S:
                    self._expire(session)
