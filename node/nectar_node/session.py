"""One session on this node: its place in the route, its KV, and what it has sent."""

import asyncio
from dataclasses import dataclass, field

import torch
from nectar_protocol.identity import PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.link import Link
from nectar_swarm.messages import Neighbours, Open, Step
from transformers.cache_utils import Cache

from nectar_node.errors import GapError, StepError


@dataclass(eq=False)
class Session:
    """`accepted` and `length` are ahead of the computation: the last step taken in, and the positions it leads to.
    `computed`, the positions in the KV, belongs to the compute thread.
    """

    number: int
    owner: PeerID
    request: Open
    cache: Cache
    kv_positions: int
    used_s: float
    neighbours: Neighbours = field(init=False)
    history: History = field(default_factory=History)
    accepted: int = 0
    length: int = 0
    computed: int = 0
    sent: int = 0
    successor: Link | None = None
    joining: asyncio.Task[None] | None = None
    closed: bool = False
    waiting_bytes: int = 0

    def __post_init__(self) -> None:
        self.neighbours = self.request.neighbours

    @property
    def predecessor(self) -> PeerID:
        return self.neighbours.prev or self.owner

    def accept(self, step: Step, width: int) -> bool:
        """Take a step in. False for one that was taken before; raises StepError for one that does not fit."""
        if step.last <= self.accepted:
            return False
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
        if step.reorder and (len(step.reorder) != batch or max(step.reorder) >= batch):
            raise StepError(f"a reorder of {len(step.reorder)} rows in a session of {batch}")
        self.accepted, self.length = step.last, step.position + tokens
        return True

    def pump(self) -> None:
        """Send the successor all that it has not been given, as fast as its link takes it."""
        if self.successor is None or self.closed:
            return
        for step in self.history.after(self.sent, self.neighbours.settled):
            if self.successor.crowded:
                self.successor.when_clear(self.pump)
                return
            self.successor.send(self.number, Kind.STEP, step.pack())
            self.sent = step.last

    def positions(self, position: int, tokens: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(position_ids [batch, tokens], attention mask [batch, position + tokens] if any row is padded)."""
        columns = torch.arange(position + tokens, device=device).expand(self.request.batch, -1)
        if not any(self.request.pads):
            return columns[:, position:], None
        pads = torch.tensor(self.request.pads, device=device)[:, None]
        return (columns[:, position:] - pads).clamp(min=0), (columns >= pads).long()
