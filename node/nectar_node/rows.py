"""A session's rows in the arena: what the two runners that keep KV there have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nectar_node.arena import Arena, Row
from nectar_node.errors import SpanError
from nectar_node.runner import Piece
from nectar_node.span import SpanModel


@dataclass(eq=False)
class RowsKV:
    """A session's rows through the model's blocks [start, stop), `length` positions reserved for each."""

    rows: list[Row]
    pads: tuple[int, ...]
    length: int
    start: int
    stop: int


class ArenaRunner:
    """The part of a Runner that keeps the books. Raises SpanError for a family whose rows are not independent."""

    def __init__(self, span: SpanModel, positions: int) -> None:
        if span.short_length is not None:  # Transformers takes one set of frequencies for a whole batch
            raise SpanError("its rotary embedding depends on the longest row of a batch")
        self.span = span
        self.arena = Arena(span.blocks, positions, span.device)

    @property
    def kv_total(self) -> int:
        return self.arena.extents.total

    @property
    def kv_free(self) -> int:
        return self.arena.extents.free

    def reserve(self, start: int, stop: int, length: int, pads: Sequence[int]) -> RowsKV | None:
        rows = self.arena.reserve(len(pads), length)
        return None if rows is None else RowsKV(rows, tuple(pads), length, start, stop)

    def release(self, kv: RowsKV) -> None:
        self.arena.release(kv.rows, kv.length)

    def prepare(self, piece: Piece) -> None:
        kv: RowsKV = piece.kv
        for row, pad in zip(kv.rows, kv.pads, strict=True):
            row.length = max(0, piece.position - pad)
        if piece.reorder:
            kv.rows = self.arena.reorder(kv.rows, piece.reorder)


def padding(piece: Piece) -> Iterator[int]:
    """How many of the piece's columns are padding, for each row."""
    for pad in piece.kv.pads:
        yield min(max(0, pad - piece.position), piece.hidden.shape[1])
