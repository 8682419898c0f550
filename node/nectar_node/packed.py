"""The main way: rows of all sessions, prompts and single tokens alike, packed as one [1, T, width].

Only attention needs to know where one row ends; everything else in a decoder works token by token. What a row pads on
the left is left out, so that a padded batch is as many rows of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers.cache_utils import Cache

from nectar_node.arena import Arena, Row
from nectar_node.attention import PACKED
from nectar_node.errors import SpanError
from nectar_node.rows import ArenaRunner, RowsKV, padding
from nectar_node.runner import Piece
from nectar_node.span import SpanModel

LAYER_TYPES = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Part:
    """A row's tokens: which of the packed ones [start, stop), and how many positions came before them."""

    row: Row
    start: int
    stop: int
    past: int

    @property
    def length(self) -> int:
        return self.past + self.stop - self.start


@dataclass(frozen=True)
class Places:
    """Where the rows lie, as the variable-length kernel wants it: int32 on the device, rows by ascending offset."""

    query_bounds: torch.Tensor  # [rows + 1]: packed tokens before each row
    key_bounds: torch.Tensor  # [rows + 1]: each row's offset in the arena
    key_lengths: torch.Tensor  # [rows]: its positions, the new ones among them
    longest_query: int
    longest_key: int


class Batch(Cache):
    """One forward's rows, as its cache: new keys and values go to their places in the arena.

    `expands`: the family transforms what it cached (multi-head latent attention), so that it is given all of it back.
    """

    def __init__(self, arena: Arena, parts: Sequence[Part], expands: bool) -> None:
        self.arena, self.parts, self.expands = arena, parts, expands
        self.layers: list[Any] = []
        self.returned: torch.Tensor | None = None  # the keys that the family was last given
        positions = [position for part in parts for position in range(part.past, part.length)]
        slots = [part.row.offset + position for part in parts for position in range(part.past, part.length)]
        self.positions = torch.tensor([positions], device=arena.device)
        self._slots = torch.tensor(slots, device=arena.device)

    @cached_property
    def places(self) -> Places:
        parts, device = self.parts, self.arena.device
        last = parts[-1].row.offset + parts[-1].length
        bounds = ([part.start for part in parts] + [parts[-1].stop], [part.row.offset for part in parts] + [last])
        query_bounds, key_bounds = (torch.tensor(bound, dtype=torch.int32, device=device) for bound in bounds)
        lengths = [part.length for part in parts]
        longest = max(part.stop - part.start for part in parts)
        key_lengths = torch.tensor(lengths, dtype=torch.int32, device=device)
        return Places(query_bounds, key_bounds, key_lengths, longest, max(lengths))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New keys and values [1, heads, T, head size] of one block."""
        self.arena.write(layer_idx, self._slots, key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))
        if self.expands:
            pasts = [self._past(layer_idx, part) for part in self.parts]
            key_states, value_states = (torch.cat(states, 2) for states in zip(*pasts, strict=True))
        self.returned = key_states
        return key_states, value_states

    def pasts(
        self, block: int, key: torch.Tensor, value: torch.Tensor
    ) -> Iterator[tuple[Part, torch.Tensor, torch.Tensor]]:
        """Each row with all its keys and values [1, heads, positions, head size], of what the family made of them."""
        if not self.expands:
            for part in self.parts:
                yield part, *self._past(block, part)
            return
        at = 0
        for part in self.parts:
            yield part, key[:, :, at : at + part.length], value[:, :, at : at + part.length]
            at += part.length

    def _past(self, block: int, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        return self.arena.past(block, part.row.offset, part.length)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0

    @property
    def is_sliding(self) -> list[bool]:
        return []


class PackedRunner(ArenaRunner):
    """Raises SpanError for a family that cannot be packed."""

    def __init__(self, span: SpanModel, positions: int) -> None:
        super().__init__(span, positions)
        text = span.model.config.get_text_config(decoder=True)
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        if not span.model._supports_attention_backend:
            raise SpanError("its attention does not go through Transformers' attention interface")
        if not kinds <= LAYER_TYPES:
            raise SpanError(f"it has blocks of the types {', '.join(sorted(kinds - LAYER_TYPES))}")
        self._expands = hasattr(text, "kv_lora_rank")

    def run(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        first = pieces[0]
        if len(pieces) == len(first.kv.rows) == 1 and not first.kv.pads[0]:
            return [self._run_one(first, first.kv.rows[0])]
        tokens = [
            (number, row, piece.hidden[index, skipped:])
            for number, piece in enumerate(pieces)
            for index, (row, skipped) in enumerate(zip(piece.kv.rows, padding(piece), strict=True))
            if skipped < piece.hidden.shape[1]
        ]
        if not tokens:  # nothing but padding
            return [torch.zeros_like(piece.hidden) for piece in pieces]
        tokens.sort(key=lambda one: one[1].offset)
        parts, at = [], 0
        for _, row, hidden in tokens:
            parts.append(Part(row, at, at + len(hidden), row.length))
            at += len(hidden)
        packed = torch.cat([hidden for _, _, hidden in tokens])[None]
        out = self._forward(first.kv, parts, packed, together=len(pieces) > 1 or first.replay)[0]
        return _unpack(pieces, {part.row: out[part.start : part.stop] for part in parts})

    def _run_one(self, piece: Piece, row: Row) -> torch.Tensor:
        """One row, which is packed as it is."""
        part = Part(row, 0, piece.hidden.shape[1], row.length)
        return self._forward(piece.kv, [part], piece.hidden, together=piece.replay)

    def _forward(self, kv: RowsKV, parts: Sequence[Part], packed: torch.Tensor, *, together: bool) -> torch.Tensor:
        """Packed hidden states [1, T, width] of all parts, on the CPU."""
        if self.span.device.type == "cuda":
            packed = packed.pin_memory()
        batch = Batch(self.arena, parts, self._expands)
        out = self.span.forward(
            packed,
            batch,
            start=kv.start,
            stop=kv.stop,
            position_ids=batch.positions,
            attention=PACKED,
            together=together,
            nectar_batch=batch,
        )
        for part in parts:
            part.row.length = part.length
        return out.cpu()


def _unpack(pieces: Sequence[Piece], outputs: dict[Row, torch.Tensor]) -> list[torch.Tensor]:
    """Each piece's output [batch, tokens, width] in memory of its own; zeros where there was padding."""
    results = []
    for piece in pieces:
        if len(piece.kv.rows) == 1 and piece.kv.rows[0] in outputs and not any(padding(piece)):
            out = outputs[piece.kv.rows[0]][None]
            results.append(out if len(outputs) == 1 else out.clone())
            continue
        result = torch.zeros(piece.hidden.shape, dtype=next(iter(outputs.values())).dtype)
        for index, row in enumerate(piece.kv.rows):
            if (tokens := outputs.get(row)) is not None:
                result[index, result.shape[1] - len(tokens) :] = tokens
        results.append(result)
    return results
