"""How a span runs the steps of many sessions at once.

Three ways, the fastest that a family can take: `packed` for what goes through Transformers' attention interface,
`padded` for what has an attention of its own, `single` for recurrent state, one session at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(eq=False)
class Piece:
    """A step, or a chunk of a long one: hidden states [batch, tokens, width] at `position` of a session's KV.

    `reorder` names, for each row, the row whose past it continues; it is applied before, and once. A `replay` differs
    by rounding from what it repeats, however it is computed: the fastest way will do.
    """

    kv: Any  # of the runner's own kind
    position: int
    hidden: torch.Tensor
    reorder: tuple[int, ...] = ()
    replay: bool = False

    @property
    def rows(self) -> int:
        """Rows of the forward that it takes part in."""
        return self.hidden.shape[0] * self.hidden.shape[1]


class KVStore(Protocol):
    """Where sessions have their KV. Belongs to the loop.

    KV is counted in positions of one row through the whole span; a session of part of the span counts as one of all.
    """

    @property
    def kv_total(self) -> int: ...

    @property
    def kv_free(self) -> int: ...

    def reserve(self, start: int, stop: int, length: int, pads: Sequence[int]) -> Any | None:
        """KV for one session through the model's blocks [start, stop); None when there is no room."""

    def release(self, kv: Any) -> None:
        """Give a session's KV back; nothing of it may be running."""


class Runner(KVStore, Protocol):
    """`reserve` and `release` belong to the loop, `prepare` and `run` to the compute thread."""

    def prepare(self, piece: Piece) -> None:
        """Roll the session back to the piece's position and reorder its rows. Once for each piece."""

    def run(self, pieces: Sequence[Piece]) -> Sequence[torch.Tensor | Exception]:
        """Prepared pieces of different sessions, all through the same blocks, in one forward: their outputs.

        Raises whatever fails them all, and leaves every session where it was, so that each can be run again alone. A
        runner that runs each alone returns an exception in the place of the output that it cost.
        """
