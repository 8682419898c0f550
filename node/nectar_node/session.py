"""One session on this node: its place in the route, its KV, what it has received and what it has sent."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nectar_protocol.identity import PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.history import History, Stored
from nectar_swarm.link import Link
from nectar_swarm.messages import Neighbours, Open, Step
from nectar_swarm.tensors import all_finite

from nectar_node.archive import Record
from nectar_node.errors import GapError, RecordError, StepError
from nectar_node.till.account import Account
from nectar_node.till.chronicle import Volume

STEPS_PER_TURN, BYTES_PER_TURN = 64, 4 << 20  # of a replay, in a turn of the loop
MAX_WAITING = 4096


@dataclass(eq=False)
class Session:
    """`accepted` and `length` are ahead of the computation: the last step taken in, and the positions it leads to.

    `kv` is the runner's; None once it was evicted, until the next step. `sent` is how far the successor has been given
    `history`, which holds this node's outputs; `received` holds its inputs. `on_failure` hears what ends the session.
    """

    number: int
    owner: PeerID
    request: Open
    kv: Any
    record: Record
    used_s: float
    on_failure: Callable[["Session", StepError], None]
    neighbours: Neighbours = field(init=False)
    received: History = field(init=False)
    history: History = field(init=False)
    accepted: int = 0
    length: int = 0
    sent: int = 0
    successor: Link | None = None
    joining: asyncio.Task[None] | None = None
    closed: bool = False
    pumping: bool = False  # in the loop's next turn
    waiting: int = 0  # steps that came and are not computed yet
    weight: int = 0  # of its hold
    account: Account | None = None  # under a hold
    volume: Volume | None = None  # what was received under it

    def __post_init__(self) -> None:
        self.neighbours = self.request.neighbours
        self.received, self.history = History(self.record.keep), History(self.record.keep)

    @property
    def predecessor(self) -> PeerID:
        return self.neighbours.prev or self.owner

    def accept(self, step: Step, width: int) -> bool:
        """Take a step in. False for one that was taken before; raises StepError for one that does not fit."""
        if step.last <= self.accepted:
            return False
        if self.waiting >= MAX_WAITING:
            raise StepError(f"{self.waiting} of this session's steps are waiting already")
        batch, tokens, step_width = step.hidden.shape
        if step.first > self.accepted + 1:
            raise GapError(f"step {step.first} after step {self.accepted}: those between are missing")
        if (batch, step_width, step.hidden.dtype) != (self.request.batch, width, self.request.dtype):
            raise StepError(
                f"hidden states [{batch}, {tokens}, {step_width}] {step.hidden.dtype} in a session of "
                f"[{self.request.batch}, …, {width}] {self.request.dtype}"
            )
        if step.position > self.length or step.position + tokens > self.request.max_length:
            raise StepError(
                f"positions {step.position} to {step.position + tokens} in a session that has {self.length} "
                f"and reserved {self.request.max_length}"
            )
        self._check_reorder(step)
        if not all_finite(step.hidden):
            raise StepError("hidden states that are not finite numbers")
        self.accepted, self.length = step.last, step.position + tokens
        return True

    def receive(self, step: Step) -> Stored:
        """Keep a step that was accepted, which now waits to be computed; where it is kept. Raises FullError."""
        stored = self.received.append(step)
        if self.volume is not None:
            self.volume.hear(step, stored)
        self.waiting += 1
        return stored

    def _check_reorder(self, step: Step) -> None:
        if not step.reorder:
            return
        batch, pads = self.request.batch, self.request.pads
        if len(step.reorder) != batch or max(step.reorder) >= batch:
            raise StepError(f"a reorder of {len(step.reorder)} rows in a session of {batch}")
        if any(pads[row] != pads[source] for row, source in enumerate(step.reorder)):
            raise StepError("a reorder between rows of different padding")

    def pump(self) -> None:
        """Send the successor all that it has not been given, as fast as its link takes it, and in turns with others."""
        if self.successor is None or self.closed:
            return
        steps = size = 0
        if self._must_wait(steps, size):
            return
        try:
            for step in self.history.after(self.sent, self.neighbours.settled):
                self.successor.send(self.number, Kind.STEP, step.pack())
                self.sent = step.last
                steps, size = steps + 1, size + step.hidden.nbytes
                if self._must_wait(steps, size):
                    return
        except RecordError as error:
            self.on_failure(self, error)

    def _must_wait(self, steps: int, size: int) -> bool:
        """Has enough been sent for now? Then `pump` is called again when it is time."""
        assert self.successor is not None
        if self.successor.crowded:
            self.successor.when_clear(self.pump)
            return True
        if steps < STEPS_PER_TURN and size < BYTES_PER_TURN:
            return False
        if not self.pumping:
            self.pumping = True
            asyncio.get_running_loop().call_soon(self._pump_on)
        return True

    def _pump_on(self) -> None:
        self.pumping = False
        self.pump()
