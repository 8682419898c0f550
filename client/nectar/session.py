"""One session: a generation's steps through a route of nodes.

The client is the first node's predecessor and keeps what it sent, as every node does; that is what a replacement is
given. After a repair every survivor is told its neighbours anew and sends again whatever has not been answered:
steps are numbered, so that what a node has already is dropped. docs/protocol.md has the rules.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType

import torch
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, Neighbours, Open, Routed, Step
from nectar_swarm.tensors import all_finite

from nectar.connection import Connection
from nectar.errors import ClientError, RequestError, SessionError
from nectar.keeper import HUNG_MS, RouteKeeper
from nectar.repair import Repair, Span
from nectar.route import Hop, Route
from nectar.spent import Spent

PATIENCE_S = 6.0  # with three seconds to notice a silent peer, an error comes within ten
STALL_CHECK_S = 1.0
STALL_S = 15.0  # no answer for so long while no node computes: something was lost that must be sent again
MAX_STALLS = 3
MAX_STEP_BYTES = 48 << 20


class Session:
    """Made by `model.session(…)`. Not for several threads at once. `position` is the number of positions in the KV.

    It runs the blocks of `route`. `patience_s` is how long a step waits for somebody to serve blocks that nobody serves
    any more.
    """

    def __init__(
        self,
        connection: Connection,
        model: ModelID,
        route: Route,
        dtype: torch.dtype,
        max_length: int,
        patience_s: float = PATIENCE_S,
    ) -> None:
        if max_length < 1:
            raise RequestError(f"max_length must be at least 1, not {max_length}")
        self.max_length, self.patience_s = max_length, patience_s
        self.pads: tuple[int, ...] = ()
        self.token_ids: torch.Tensor | None = None  # what the KV holds, if `generate` filled it
        self.position = 0
        self._connection, self._model, self._dtype = connection, model, dtype
        self._keeper = RouteKeeper(connection, self, model, route)
        self._history = History()
        self._last = self._answered = self._sent = 0
        self._answer: Future[torch.Tensor] | None = None  # of the step that waits for one
        self._alarm: asyncio.TimerHandle | None = None
        self._minder: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def spent(self) -> Spent:
        """What it has cost so far, by what its nodes and we have signed; nothing where nothing is paid."""
        return Spent()

    @property
    def route(self) -> tuple[Span, ...]:
        """The nodes that this session runs through; empty before its first step."""
        return self._keeper.spans

    @property
    def repairs(self) -> list[Repair]:
        """The changes of its route so far."""
        return self._keeper.repairs

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
        """Hidden states [batch, tokens, width] at `position` through the blocks; returns the last block's output.

        An earlier position than the session has reached rolls it back, and `reorder` moves its rows, also if the step
        then fails. Raises NoRouteError when nobody serves some of
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
        self.pads, self._keeper.route.positions = pads, batch * self.max_length
        per_step = max(1, self._most_positions(batch, width * hidden.element_size()))
        outputs = []
        self.position = position
        for piece in torch.split(hidden.detach().cpu(), per_step, 1):  # here, so that the loop is not held up
            outputs.append(self._run(piece, self.position, tuple(reorder)))
            self.position += piece.shape[1]
            reorder = ()
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)

    def _most_positions(self, batch: int, vector_bytes: int) -> int:
        """Of one step."""
        return MAX_STEP_BYTES // (batch * vector_bytes)

    def _run(self, hidden: torch.Tensor, position: int, reorder: tuple[int, ...]) -> torch.Tensor:
        """One step, waited for. An interrupt of the waiting thread gives it up."""
        answer: Future[torch.Tensor] = Future()
        self._connection.call(self.begin, hidden, position, reorder, answer)
        try:
            return answer.result()
        finally:
            if not answer.done():
                self._connection.call(self._give_up, answer)

    # In the loop

    def begin(
        self, hidden: torch.Tensor, position: int, reorder: tuple[int, ...], answer: Future[torch.Tensor]
    ) -> None:
        """Start a step, to be answered with the last block's output or an error.

        On a route that works nothing needs to wait for it here: a task looks after it only if trouble comes, or when no
        answer has for a second.
        """
        if self._closed:
            answer.set_exception(SessionError("the session was closed"))
            return
        self._last += 1
        step = Step(self._last, self._last, position, hidden, reorder)
        self._history.append(step)
        if refusal := self._before(step):
            answer.set_exception(refusal)
            return
        self._answer = answer
        if self._keeper.ready:
            self._pump()
            self._alarm = asyncio.get_running_loop().call_later(STALL_CHECK_S, self.on_trouble)
        else:
            self.on_trouble()

    def _before(self, step: Step) -> ClientError | None:
        """A step is about to be sent; why it cannot be, if so."""
        return None

    def on_trouble(self) -> None:
        """See to it that the waiting step, if there is one, gets its answer."""
        if self._answer is not None and self._minder is None:
            self._minder = asyncio.create_task(self._mind())

    async def _mind(self) -> None:
        while (answer := self._answer) is not None:
            try:
                await self._tend(answer)
            except Exception as error:
                if self._answer is answer:
                    self._end_step(error)
        self._minder = None

    async def _tend(self, answer: Future[torch.Tensor]) -> None:
        """Mend the route and send again, until this step has its answer. Raises what waiting longer would not mend."""
        stalls = 0
        while self._answer is answer:
            await self._keeper.ensure(self._last, self._answered, self.patience_s)
            self._pump()
            await self._wait_for_answer(answer)
            if self._answer is answer and not self._keeper.broken:
                stalls += 1
                if stalls >= MAX_STALLS:
                    raise SessionError(f"no answer for {stalls * STALL_S:.0f} s, though all nodes of the route live")
                self._keeper.note("no answer; sending again what was not answered")

    async def _wait_for_answer(self, answer: Future[torch.Tensor]) -> None:
        """Return with an answer, with a broken route, or when nothing has happened for too long."""
        keeper, idle_s = self._keeper, 0.0
        until_s = time.monotonic() + HUNG_MS / 1000  # whatever nodes say of their computing
        while self._answer is answer and not keeper.broken and idle_s < STALL_S and time.monotonic() < until_s:
            keeper.news.clear()
            try:
                async with asyncio.timeout(STALL_CHECK_S):
                    await keeper.news.wait()
            except TimeoutError:
                idle_s = 0.0 if keeper.check_computing() else idle_s + STALL_CHECK_S

    def _give_up(self, answer: Future[torch.Tensor]) -> None:
        """Nobody waits for this step any more."""
        if self._answer is answer:
            self._clear()
            self._stop_minding()

    def _clear(self) -> None:
        self._answer = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _stop_minding(self) -> None:
        if self._minder is not None:
            self._minder.cancel()
            self._minder = None

    def _pump(self) -> None:
        """Send the first node all that it has not been given, as fast as its link takes it."""
        if self._closed or not self._keeper.route.complete:
            return
        hop = self._keeper.route.hops[0]
        link = self._connection.present_link(hop.peer)
        if link is None:
            self._keeper.fail(hop, "has closed its link")
            return
        for step in self._history.after(self._sent, self._keeper.route.settled):
            if link.crowded:
                link.when_clear(self._pump)
                return
            link.send(self._keeper.number, Kind.STEP, step.pack())
            self._sent = step.last

    # Called by the keeper of the route

    def opening(self, hop: Hop, place: Neighbours) -> Open:
        return Open(self._model, hop.start, hop.stop, self.max_length, self._dtype, self.pads or (0,), place)

    async def prepare(self) -> None: ...

    def on_renumbered(self, before: int) -> None: ...

    def on_placed(self) -> None:
        self._sent = self._answered if self._keeper.route.hops[0].whole else 0
        self._pump()

    # Called by the connection

    def on_message(self, link: Link, kind: Kind, payload: bytes) -> None:
        hop = self._keeper.route.hop(link.peer)
        if hop is None:
            return
        try:
            match kind:
                case Kind.STEP:
                    self._on_step(hop, payload)
                case Kind.ROUTED:
                    self._keeper.on_routed(hop, Routed.unpack(payload).generation)
                case Kind.ERROR:
                    self._on_error(hop, Error.unpack(payload, link.version))
        except MalformedError as error:
            self._keeper.fail(hop, f"sent a broken message: {error}")

    def _on_error(self, hop: Hop, error: Error) -> None:
        if refusal := self._keeper.on_error(hop, error):
            self._end_step(refusal)

    def on_dead(self, peer: PeerID, reason: str) -> None:
        self._keeper.on_dead(peer, reason)

    def _on_step(self, hop: Hop, payload: bytes) -> None:
        route = self._keeper.route
        if (after := route.successor(hop)) is not None:  # a link that the two could not make
            # What came before the confirmation of its place may be older than the session at the next node.
            current = hop.routed == route.generation and (hop.peer, after) in route.relayed
            if current and (link := self._connection.present_link(after)):
                link.send(self._keeper.number, Kind.STEP, payload)
            return
        step = Step.unpack(payload)
        if step.last != self._last or self._answer is None:
            return
        asked = self._history.entries[-1].load()
        if step.hidden.shape != asked.shape or step.hidden.dtype != asked.dtype:
            self._keeper.fail(hop, f"answered {list(step.hidden.shape)} to {list(asked.shape)}")
            return
        if not all_finite(step.hidden):
            self._keeper.fail(hop, "answered with what are no finite numbers")
            return
        self._answered = step.last
        self._keeper.settle(step.last)
        self._end_step(step.hidden)
        self._after(step, hop, payload)

    def _after(self, step: Step, hop: Hop, payload: bytes) -> None:
        """The last hop's answer to the present step has been handed on."""

    def _end_step(self, end: torch.Tensor | Exception) -> None:
        """Give the waiting step its answer, or the error that ends it."""
        if (answer := self._answer) is None:
            return
        self._clear()
        if isinstance(end, torch.Tensor):
            answer.set_result(end)
        else:
            answer.set_exception(end)
        self._keeper.news.set()

    def abandon(self) -> None:
        """Close everywhere; runs in the loop."""
        self._closed = True
        for span in self.route:
            if link := self._connection.present_link(span.peer):
                link.send(self._keeper.number, Kind.CLOSE)
        self._connection.remove(self._keeper.number)
        self._end_step(SessionError("the session was closed"))
        self._stop_minding()
