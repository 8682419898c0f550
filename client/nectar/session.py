"""One session: a generation's steps through a route of nodes, and the route's repair when a node is lost.

The client is the first node's predecessor and keeps what it sent, as every node does; that is what a replacement is
given. After a repair every survivor is told its neighbours anew and sends again whatever has not been answered:
steps are numbered, so that what a node has already is dropped. docs/protocol.md has the rules.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import SwarmError
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Open, Routed, Step

from nectar.connection import Connection, Effort
from nectar.errors import ClientError, NoRouteError, RequestError, SessionError
from nectar.route import Hop, Route
from nectar.routing import Candidate

PATIENCE_S = 6.0  # with three seconds to notice a silent peer, an error comes within ten
ROUTED_S = 6.0
RETRY_S = 0.2
STALL_CHECK_S = 1.0
STALL_S = 15.0  # no answer for so long while no node computes: something was lost that must be sent again
MAX_STALLS = 3
HUNG_MS = 600_000
MAX_STEP_BYTES = 48 << 20

log = logging.getLogger(__name__)


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


class Session:
    """Made by `model.session(…)`. Not for several threads at once. `position` is the number of positions in the KV.

    `patience_s` is how long a step waits for somebody to serve blocks that nobody serves any more.
    """

    def __init__(
        self,
        connection: Connection,
        model: ModelID,
        blocks: int,
        dtype: torch.dtype,
        max_length: int,
        patience_s: float = PATIENCE_S,
    ) -> None:
        if max_length < 1:
            raise RequestError(f"max_length must be at least 1, not {max_length}")
        self.max_length, self.patience_s = max_length, patience_s
        self.repairs: list[Repair] = []
        self.pads: tuple[int, ...] = ()
        self.token_ids: torch.Tensor | None = None  # what the KV holds, if `generate` filled it
        self.position = 0
        self._connection, self._model, self._dtype = connection, model, dtype
        self._number = connection.add(self)
        self._route = Route(blocks)
        self._history = History()
        self._last = self._answered = self._sent = 0
        self._answer: asyncio.Future[Step] | None = None
        self._news = asyncio.Event()  # an answer, a confirmation, or trouble
        self._broken = False  # the route must be mended before anything goes on
        self._reasons: list[str] = []
        self._closed = False

    @property
    def route(self) -> tuple[Span, ...]:
        """The nodes that this session runs through; empty before its first step."""
        return tuple(Span(hop.peer, hop.start, hop.stop) for hop in self._route.hops)

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell the nodes to free what they hold. May be called twice."""
        if not self._closed:
            self._connection.call(self.abandon)
            self._closed = True

    def step(
        self, hidden: torch.Tensor, position: int, reorder: Sequence[int] = (), pads: Sequence[int] = ()
    ) -> torch.Tensor:
        """Hidden states [batch, tokens, width] at `position` through all blocks; returns the last block's output.

        An earlier position than the session has reached rolls it back. Raises NoRouteError when nobody serves some of
        the blocks for longer than the session's patience; the session can then be used again. Raises SessionError or
        RequestError for what waiting would not mend.
        """
        if self._closed:
            raise SessionError("this session is closed; open another with model.session(…)")
        batch, tokens, width = hidden.shape
        pads = tuple(pads) or self.pads or (0,) * batch
        if self.pads and pads != self.pads:
            raise RequestError("the rows or the padding of a session cannot change; open another session")
        if position > self.position or position + tokens > self.max_length:
            raise RequestError(
                f"positions {position} to {position + tokens} in a session that holds {self.position} of at most "
                f"{self.max_length}; open it with a larger max_length"
            )
        self.pads = pads
        per_step = max(1, MAX_STEP_BYTES // (batch * width * hidden.element_size()))
        outputs = []
        for piece in torch.split(hidden, per_step, 1):
            outputs.append(self._connection.run(self._step(piece, position, tuple(reorder))))
            position += piece.shape[1]
            self.position = position
            reorder = ()
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)

    # In the loop

    async def _step(self, hidden: torch.Tensor, position: int, reorder: tuple[int, ...]) -> torch.Tensor:
        self._last += 1
        self._history.append(Step(self._last, self._last, position, hidden.detach().cpu(), reorder))
        self._answer = asyncio.get_running_loop().create_future()
        stalls = 0
        try:
            while not self._answer.done():
                await self._ensure_route()
                self._pump()
                await self._wait_for_answer()
                if not self._answer.done() and not self._broken:
                    stalls += 1
                    if stalls >= MAX_STALLS:
                        raise SessionError(
                            f"no answer for {stalls * STALL_S:.0f} s, though all nodes of the route live"
                        )
                    self._note("no answer; sending again what was not answered")
            step = self._answer.result()
        finally:
            self._answer = None
        self._answered = step.last
        self._route.settle(step.last)
        return step.hidden

    async def _wait_for_answer(self) -> None:
        """Return with an answer, with a broken route, or when nothing has happened for too long."""
        assert self._answer is not None
        idle_s = 0.0
        while not self._answer.done() and not self._broken and idle_s < STALL_S:
            self._news.clear()
            try:
                async with asyncio.timeout(STALL_CHECK_S):
                    await self._news.wait()
            except TimeoutError:
                idle_s = 0.0 if self._anyone_computes() else idle_s + STALL_CHECK_S

    def _anyone_computes(self) -> bool:
        computing = False
        for hop in self._route.hops:
            link = self._connection.present_link(hop.peer)
            if link is not None and link.busy_ms > HUNG_MS:
                self._fail(hop, f"has computed for {link.busy_ms / 60_000:.0f} minutes")
            computing = computing or (link is not None and link.busy_ms > 0)
        return computing

    def _pump(self) -> None:
        first = self._connection.present_link(self._route.hops[0].peer)
        if first is None:
            self._fail(self._route.hops[0], "has closed its link")
            return
        for step in self._history.after(self._sent, self._answered):
            first.send(self._number, Kind.STEP, step.pack())
            self._sent = step.last

    # The route

    async def _ensure_route(self) -> None:
        """Return with a whole route. Raises NoRouteError or SessionError when patience is over."""
        if self._route.complete and not self._broken:
            if any(hop.leaving for hop in self._route.hops):
                await self._move_on()
            return
        started_s, before = time.monotonic(), self.route
        effort = Effort.AT_HAND if before else Effort.MEET
        failure: Exception = SessionError("no node answered")
        try:
            async with asyncio.timeout(self.patience_s):
                while True:
                    try:
                        await self._mend(effort)
                        break
                    except (ClientError, SwarmError) as error:
                        failure = error
                    if effort is Effort.FORGIVE:
                        await asyncio.sleep(RETRY_S)
                    effort = Effort(min(effort + 1, Effort.FORGIVE))
        except TimeoutError as error:
            raise self._final(failure) from error
        if before:
            self.repairs.append(Repair(tuple(self._reasons), before, self.route, time.monotonic() - started_s))
        self._reasons.clear()

    async def _move_on(self) -> None:
        """Replace nodes that said they will leave, if others can do their work; else stay until they go."""
        leaving = [hop for hop in self._route.hops if hop.leaving]
        for hop in leaving:
            hop.failed = True
        try:
            self._replace(await self._connection.candidates(self._model, Effort.LOOK_AGAIN))
        except (ClientError, SwarmError):
            for hop in leaving:
                hop.failed = hop.leaving = False
            return
        for hop in leaving:
            self._note(f"{hop.peer[-6:]} (blocks {hop.start}:{hop.stop}) leaves")
        await self._ensure_route()

    async def _mend(self, effort: Effort) -> None:
        """One attempt at a whole route, confirmed by all its hops. Raises ClientError or SwarmError."""
        self._broken = False
        for hop in self._route.hops:
            hop.failed = hop.failed or self._connection.present_link(hop.peer) is None
        if not self._route.complete:
            self._replace(await self._connection.candidates(self._model, effort))
        self._route.generation += 1
        self._give_places()
        await self._wait_until_routed()
        # In the first generation the answer to the present step proves all hops whole; later one only the next does,
        # since the present one may have been on its way behind the hop that was replaced.
        self._route.prove_by(self._last if self._route.generation == 1 else self._last + 1)
        self._sent = self._answered if self._route.hops[0].whole else 0
        for hop in self._route.hops:
            self._connection.trust_again(hop.peer)

    def _replace(self, candidates: Sequence[Candidate]) -> None:
        """Fill the route's gaps, and close the session on nodes that are no longer in it. Raises NoRouteError."""
        for hop in self._route.mend(candidates):
            if link := self._connection.present_link(hop.peer):
                link.send(self._number, Kind.CLOSE)

    def _give_places(self) -> None:
        for hop, place in zip(self._route.hops, self._route.places(self._answered), strict=True):
            link = self._connection.present_link(hop.peer)
            if link is None:
                self._fail(hop, "has closed its link")
            elif hop.opened:
                link.send(self._number, Kind.REROUTE, place.pack())
            else:
                request = Open(self._model, hop.start, hop.stop, self.max_length, self._dtype, self.pads or (0,), place)
                link.send(self._number, Kind.OPEN, request.pack())
                hop.opened = True

    async def _wait_until_routed(self) -> None:
        """Raises SessionError if the route breaks meanwhile or some hop does not confirm its place in time."""
        generation = self._route.generation
        try:
            async with asyncio.timeout(ROUTED_S):
                while any(hop.routed < generation for hop in self._route.hops):
                    if self._broken:
                        raise SessionError("; ".join(self._reasons[-3:]))
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            for hop in self._route.hops:
                if hop.routed < generation:
                    self._fail(hop, f"did not confirm its place within {ROUTED_S:g} s")
            raise SessionError("; ".join(self._reasons[-3:])) from error
        if self._broken:
            raise SessionError("; ".join(self._reasons[-3:]))

    def _final(self, error: Exception) -> ClientError:
        if isinstance(error, NoRouteError):
            return NoRouteError(error.missing, self._hint())
        return SessionError(f"no route for this session within {self.patience_s:g} s: {error}")

    def _hint(self) -> str:
        waited = f" (waited {self.patience_s:g} s"
        return f"{waited}; lost: {'; '.join(self._reasons[-3:])})" if self._reasons else f"{waited})"

    def _fail(self, hop: Hop, reason: str, *, aside: bool = True) -> None:
        hop.failed = True
        if aside:
            self._connection.set_aside(hop.peer)
        self._note(f"{hop.peer[-6:]} (blocks {hop.start}:{hop.stop}) {reason}")

    def _note(self, reason: str) -> None:
        log.info("session: %s", reason)
        self._reasons.append(reason)
        self._broken = True
        self._news.set()

    # Called by the connection

    def on_message(self, link: Link, kind: Kind, payload: bytes) -> None:
        hop = self._route.hop(link.peer)
        if hop is None:
            return
        try:
            match kind:
                case Kind.STEP:
                    self._on_step(hop, payload)
                case Kind.ROUTED:
                    hop.routed = max(hop.routed, Routed.unpack(payload).generation)
                    self._news.set()
                case Kind.ERROR:
                    self._on_error(hop, Error.unpack(payload))
        except MalformedError as error:
            self._fail(hop, f"sent a broken message: {error}")

    def _on_step(self, hop: Hop, payload: bytes) -> None:
        at = self._route.hops.index(hop)
        if at + 1 < len(self._route.hops):  # a link that the two could not make
            after = self._route.hops[at + 1].peer
            if (hop.peer, after) in self._route.relayed and (link := self._connection.present_link(after)):
                link.send(self._number, Kind.STEP, payload)
            return
        step = Step.unpack(payload)
        if self._answer is None or self._answer.done() or step.last != self._last:
            return
        asked = self._history.steps[-1].hidden
        if step.hidden.shape != asked.shape or step.hidden.dtype != asked.dtype:
            self._fail(hop, f"answered {list(step.hidden.shape)} to {list(asked.shape)}")
            return
        self._answer.set_result(step)
        self._news.set()

    def _on_error(self, hop: Hop, error: Error) -> None:
        if error.generation and error.generation != self._route.generation:
            return  # about a place that was changed since
        match error.code:
            case ErrorCode.UNREACHABLE if error.peer is not None:
                self._route.relayed.add((hop.peer, error.peer))
                self._note(f"{hop.peer[-6:]} cannot reach {error.peer[-6:]}; their link runs through us now")
            case ErrorCode.LOST if error.peer is not None:
                self._note(f"{hop.peer[-6:]} lost {error.peer[-6:]}: {error.text}")
            case ErrorCode.LEAVING if not error.generation:
                hop.leaving = True
            case ErrorCode.MALFORMED | ErrorCode.OUT_OF_RANGE if not error.generation:
                if self._answer is not None and not self._answer.done():
                    self._answer.set_exception(SessionError(f"{hop.peer} refused a step: {error.text}"))
                    self._news.set()
            case ErrorCode.DENIED if not error.generation:
                log.info("%s refused a step that came too late", hop.peer)
            case ErrorCode.EXPIRED:
                self._fail(hop, "ended the session: " + error.text, aside=False)
            case _:
                self._fail(hop, f"refused: {error.text}")

    def on_dead(self, peer: PeerID, reason: str) -> None:
        if (hop := self._route.hop(peer)) is not None and not hop.failed:
            hop.failed = True
            self._note(f"{peer[-6:]} (blocks {hop.start}:{hop.stop}) {reason}")

    def abandon(self) -> None:
        """Close everywhere; runs in the loop."""
        self._closed = True
        for hop in self._route.hops:
            if link := self._connection.present_link(hop.peer):
                link.send(self._number, Kind.CLOSE)
        self._connection.remove(self._number)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SessionError("the session was closed"))
            self._news.set()
