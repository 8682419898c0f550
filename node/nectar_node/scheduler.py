"""What the next iteration computes. Pure bookkeeping, called by the engine under its lock.

Single tokens and short verifications go first, so that nobody's next token waits behind somebody's prompt; prompts
fill what is left, chunk by chunk. Here whoever came first is served first.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from nectar_swarm.history import Stored

SHORT_TOKENS = 8  # up to which a step counts as decoding: a token, or a few drafted ones
MAX_ROWS = 512  # of one iteration, unless a single step has more
PROMPT_SHARE = 4  # while prompts wait, a quarter of the rows is theirs


@dataclass(eq=False)
class Work:
    """One step of a session: hidden states [batch, tokens, width] to run through the blocks that its KV is for.

    They are loaded when their turn comes: a long replay waits on disk. `flow` is whose step it is, `tag` what the
    service wants back with the output, `done` the tokens computed so far. A `replay` is many steps at once, and the one
    that waits for them all is to be expected behind it.
    """

    flow: Hashable
    kv: Any
    position: int
    batch: int
    tokens: int
    stored: Stored
    reorder: tuple[int, ...] = ()
    tag: Any = None
    replay: bool = False
    done: int = 0
    loaded: torch.Tensor | None = None
    outputs: list[torch.Tensor] = field(default_factory=list)
    ready_s: float = 0.0

    @property
    def left(self) -> int:
        """Tokens still to be computed."""
        return self.tokens - self.done

    @property
    def short(self) -> bool:
        return self.tokens <= SHORT_TOKENS

    @property
    def hidden(self) -> torch.Tensor:
        if self.loaded is None:
            self.loaded = self.stored.load()
        return self.loaded


@dataclass(frozen=True)
class Grant:
    """So many more tokens of a work run in this iteration."""

    work: Work
    tokens: int

    @property
    def rows(self) -> int:
        return self.work.batch * self.tokens

    @property
    def hidden(self) -> torch.Tensor:
        work = self.work
        return work.hidden if self.tokens == work.tokens else work.hidden[:, work.done : work.done + self.tokens]


class Scheduler(Protocol):
    """Holds at most one work of each flow."""

    @property
    def rows(self) -> int:
        """Rows that wait."""

    @property
    def short_rows(self) -> int:
        """Rows of single tokens and short verifications that wait."""

    def add(self, work: Work) -> None:
        """A work is ready: its flow's earlier ones are finished."""

    def discard(self, work: Work) -> None:
        """Forget a work, if it waits."""

    def take(self, prompt_rows: int | None) -> list[Grant]:
        """The next iteration; of prompts at most so many rows, or each whole (None).

        What is not granted in full goes on waiting.
        """


class FirstCome:
    """Everybody in the order of arrival."""

    def __init__(self) -> None:
        self._short: dict[Work, None] = {}
        self._long: dict[Work, None] = {}

    @property
    def rows(self) -> int:
        return sum(work.batch * work.left for work in (*self._short, *self._long))

    @property
    def short_rows(self) -> int:
        return sum(work.batch * work.left for work in self._short)

    def add(self, work: Work) -> None:
        (self._short if work.short else self._long)[work] = None

    def discard(self, work: Work) -> None:
        self._short.pop(work, None)
        self._long.pop(work, None)

    def take(self, prompt_rows: int | None) -> list[Grant]:
        grants: list[Grant] = []
        room = MAX_ROWS
        kept = MAX_ROWS // PROMPT_SHARE if self._long else 0
        for work in list(self._short):
            rows = work.batch * work.left
            if rows > room - kept and grants:
                break
            grants.append(Grant(work, work.left))
            del self._short[work]
            room -= rows
        if prompt_rows is not None:
            room = min(room, prompt_rows)
        for work in list(self._long):
            tokens = work.left if prompt_rows is None else min(work.left, room // work.batch)
            if tokens <= 0 and (not grants or grants[-1].work.short):
                tokens = 1  # whoever waits longest gets on, however many rows it has and whoever decodes
            if tokens <= 0:
                break
            grants.append(Grant(work, tokens))
            room -= tokens * work.batch
            if tokens == work.left:
                del self._long[work]
        return grants
