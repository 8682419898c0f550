"""The KV of all sessions: per block one tensor of keys and one of values, [positions, heads, head size].

A session reserves, when it opens, a contiguous stretch for each of its rows at its full length, so that attention
reads a row's past as a slice: no pages, no gathering, no copy when a row grows. What is reserved is not touched before
it is written, so that on a CPU it costs no memory until then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nectar_node.extents import Extents


@dataclass(eq=False)
class Row:
    """One row's stretch of the arena, and how many positions it holds. A rollback only lowers `length`."""

    offset: int
    length: int = 0


class Arena:
    """`reserve` and `release` belong to the loop, the tensors to the compute thread.

    The loop must not release a stretch that a running iteration still writes to.
    """

    def __init__(self, blocks: int, positions: int, device: torch.device) -> None:
        self.device = device
        self.extents = Extents(positions)
        self.keys: list[torch.Tensor | None] = [None] * blocks
        self.values: list[torch.Tensor | None] = [None] * blocks

    def reserve(self, rows: int, length: int) -> list[Row] | None:
        """Stretches of `length` positions for so many rows; None when they are not to be had."""
        offsets = self.extents.reserve([length] * rows)
        return None if offsets is None else [Row(offset) for offset in offsets]

    def release(self, rows: Sequence[Row], length: int) -> None:
        for row in rows:
            self.extents.release(row.offset, length)

    def write(self, block: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values [tokens, heads, head size] at these positions of the arena.

        The first call for a block allocates its tensors: families differ in the shapes that they cache.
        """
        for tensors, new in ((self.keys, keys), (self.values, values)):
            tensor = tensors[block]
            if tensor is None:
                tensor = tensors[block] = new.new_empty(self.extents.total, *new.shape[1:])
            tensor.index_copy_(0, slots, new)

    def of(self, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of a block that has been written to."""
        keys, values = self.keys[block], self.values[block]
        assert keys is not None, "a block is read before it is written"
        assert values is not None, "a block is read before it is written"
        return keys, values

    def past(self, block: int, offset: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values [1, heads, length, head size] of a stretch, in place."""
        keys, values = self.of(block)
        return _stretch(keys, offset, length), _stretch(values, offset, length)

    def reorder(self, rows: Sequence[Row], order: Sequence[int]) -> list[Row]:
        """The rows, each continuing the past of the row that `order` names for it.

        A row that goes on once or more keeps its stretch for the first that continues it; only the others are copied.
        """
        wanted = [rows[source] for source in order]
        spare = [row for row in rows if row not in wanted]
        placed: list[Row] = []
        for source in wanted:
            if source in placed:
                target = spare.pop()
                self._copy(source, target)
                source = target
            placed.append(source)
        return placed

    def _copy(self, source: Row, target: Row) -> None:
        for tensor in (*self.keys, *self.values):
            if tensor is not None:
                tensor[target.offset : target.offset + source.length] = tensor[source.offset :][: source.length]
        target.length = source.length


def _stretch(tensor: torch.Tensor, offset: int, length: int) -> torch.Tensor:
    """In one view instead of three: of a token's many short operations none is too small to be saved."""
    _, heads, size = tensor.shape
    return tensor.as_strided((1, heads, length, size), (0, size, heads * size, 1), offset * heads * size)
