"""What is to be computed, and what an iteration has of it: the words that the engine and its scheduler share."""

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
    that waits for them all is to be expected behind it. `weight` is the priority that its session pays for; 0: nothing.
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
    weight: int = 0
    done: int = 0
    loaded: torch.Tensor | None = None
    outputs: list[torch.Tensor] = field(default_factory=list)
    ready_s: float = 0.0

    @property
    def left(self) -> int:
        """Tokens still to be computed."""
        return self.tokens - self.done

    @property
    def rows(self) -> int:
        """Rows still to be computed."""
        return self.batch * self.left

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
    def free_share(self) -> float:
        """Of all that is computed, for those who do not pay while others wait."""

    def short_rows(self, *, paid: bool) -> int:
        """Rows of single tokens and short verifications that wait: all, or those that are paid for."""

    def add(self, work: Work) -> None:
        """A work is ready: its flow's earlier ones are finished."""

    def discard(self, work: Work) -> None:
        """Forget a work, if it waits."""

    def forget(self, flow: Hashable) -> None:
        """A flow has ended; none of its works waits."""

    def take(self, prompt_rows: int | None, spare_rows: int = MAX_ROWS) -> list[Grant]:
        """The next iteration: something, if anything waits. Of prompts at most so many rows, or each whole (None).

        It may have `spare_rows` more than is fair to those who pay, as these add little to its time. What is not
        granted in full goes on waiting.
        """
