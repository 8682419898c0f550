"""The second way, for families with an attention of their own (alibi, chunked attention).

Single tokens of all sessions run as one batch [rows, 1, width] whose pasts are copied side by side, aligned on the
right, which is left padding to the family; longer pieces run row by row, on their places in the arena. Masks and
position biases stay the family's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache

from nectar_node.arena import Arena, Row
from nectar_node.errors import SpanError
from nectar_node.rows import ArenaRunner, RowsKV, padding
from nectar_node.runner import Piece
from nectar_node.span import SpanModel

Token = tuple[Row, torch.Tensor, torch.Tensor]  # a row, its hidden states [1, width], where its output goes


class _RowCache(Cache):
    """Several new tokens of one row."""

    def __init__(self, arena: Arena, row: Row, tokens: int) -> None:
        self.layers: list[Any] = []
        self._arena, self._row, self._stop = arena, row, row.length + tokens
        self._slots = torch.arange(row.offset + row.length, row.offset + self._stop, device=arena.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, ...]:
        self._arena.write(layer_idx, self._slots, key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))
        first, last = self._row.offset, self._row.offset + self._stop
        return tuple(tensor[first:last].transpose(0, 1)[None] for tensor in self._arena.of(layer_idx))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._row.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._stop, 0

    @property
    def is_sliding(self) -> list[bool]:
        return []


class _AlignedCache(Cache):
    """One new token of each of several rows: their pasts as a batch, aligned on the right."""

    def __init__(self, arena: Arena, rows: Sequence[Row]) -> None:
        self.layers: list[Any] = []
        self._arena, self._rows = arena, rows
        self.longest = max(row.length for row in rows)
        self._slots = torch.tensor([row.offset + row.length for row in rows], device=arena.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, ...]:
        self._arena.write(layer_idx, self._slots, key_states[:, :, 0], value_states[:, :, 0])
        return tuple(self._aligned(tensor) for tensor in self._arena.of(layer_idx))

    def _aligned(self, tensor: torch.Tensor) -> torch.Tensor:
        """[rows, heads, longest + 1, head size]; zeros before a row begins."""
        aligned = tensor.new_zeros(len(self._rows), self.longest + 1, *tensor.shape[1:])
        for target, row in zip(aligned, self._rows, strict=True):
            target[self.longest - row.length :] = tensor[row.offset : row.offset + row.length + 1]
        return aligned.transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.longest

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.longest + 1, 0

    @property
    def is_sliding(self) -> list[bool]:
        return []


class PaddedRunner(ArenaRunner):
    """Raises SpanError for a family with recurrent state."""

    def __init__(self, span: SpanModel, positions: int) -> None:
        super().__init__(span, positions)
        if span.recurrent:
            raise SpanError("it has recurrent state")

    def run(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        out = [torch.zeros(piece.hidden.shape, dtype=self.span.dtype) for piece in pieces]
        single: list[Token] = []
        lengths: list[tuple[Row, int]] = []
        for piece, result in zip(pieces, out, strict=True):
            for row, hidden, target, skipped in zip(piece.kv.rows, piece.hidden, result, padding(piece), strict=True):
                tokens = len(hidden) - skipped
                if tokens == 1 and row.length:
                    single.append((row, hidden[skipped:], target[skipped:]))
                elif tokens:
                    target[skipped:] = self._run_row(piece.kv, row, hidden[skipped:], together=piece.replay)
                lengths.append((row, row.length + tokens))
        single.sort(key=lambda token: -token[0].length)
        while single:  # at once as many as the arena could hold at the longest one's length
            count = max(1, self.kv_total // (single[0][0].length + 1))
            self._run_single(pieces[0].kv, single[:count], together=len(pieces) > 1 or pieces[0].replay)
            single = single[count:]
        for row, length in lengths:
            row.length = length
        return out

    def _run_row(self, kv: RowsKV, row: Row, hidden: torch.Tensor, *, together: bool) -> torch.Tensor:
        positions = torch.arange(row.length, row.length + len(hidden), device=self.span.device)[None]
        cache = _RowCache(self.arena, row, len(hidden))
        out = self.span.forward(
            hidden[None], cache, start=kv.start, stop=kv.stop, position_ids=positions, together=together
        )
        return out[0].cpu()

    def _run_single(self, kv: RowsKV, single: Sequence[Token], *, together: bool) -> None:
        rows = [row for row, _, _ in single]
        cache = _AlignedCache(self.arena, rows)
        lengths = torch.tensor([row.length for row in rows], device=self.span.device)[:, None]
        columns = torch.arange(cache.longest + 1, device=self.span.device)
        out = self.span.forward(
            torch.stack([hidden for _, hidden, _ in single]),
            cache,
            start=kv.start,
            stop=kv.stop,
            position_ids=lengths,
            attention_mask=(columns >= cache.longest - lengths).long(),
            together=together,
        ).cpu()
        for (_, _, target), result in zip(single, out, strict=True):
            target.copy_(result)
