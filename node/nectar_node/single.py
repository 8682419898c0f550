"""The last way, for recurrent state: each session has Transformers' own cache and runs alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, DummyLayer, DynamicLayer

from nectar_node.errors import SpanError
from nectar_node.runner import Piece
from nectar_node.span import SpanModel

UNBOUNDED = (DynamicLayer, DummyLayer)  # layers that keep all of their past


@dataclass(eq=False)
class CacheKV:
    """A session's cache through the model's blocks [start, stop), `length` positions reserved for each row."""

    cache: Cache
    pads: tuple[int, ...]
    length: int
    start: int
    stop: int
    computed: int = 0
    recorded: int = 0  # tokens that windows and convolutions can forget: those of the last step

    @property
    def reserved(self) -> int:
        return len(self.pads) * self.length


class SingleRunner:
    """Whatever Transformers can run with a cache."""

    def __init__(self, span: SpanModel, positions: int) -> None:
        self.span = span
        self.kv_total = self.kv_free = positions

    def reserve(self, start: int, stop: int, length: int, pads: Sequence[int]) -> CacheKV | None:
        kv = CacheKV(self.span.new_cache(start, stop), tuple(pads), length, start, stop)
        if kv.reserved > self.kv_free:
            return None
        self.kv_free -= kv.reserved
        return kv

    def release(self, kv: CacheKV) -> None:
        self.kv_free += kv.reserved

    def prepare(self, piece: Piece) -> None:
        """Raises SpanError for a rollback, but to the beginning, of recurrent state or past what is recorded, and for
        positions whose frequencies Transformers would keep for the sessions that come after."""
        kv: CacheKV = piece.kv
        longest = self.span.short_length
        if self.span.frequencies_grow and longest and piece.position + piece.hidden.shape[1] > longest:
            raise SpanError(f"texts of more than {longest} tokens have frequencies that change with each token")
        back = kv.computed - piece.position
        if kv.computed and not piece.position:
            kv.cache = self.span.new_cache(kv.start, kv.stop)
        elif back and self.span.recurrent:
            raise SpanError("recurrent state cannot be rolled back")
        elif back > kv.recorded and not all(type(layer) in UNBOUNDED for layer in kv.cache.layers):
            raise SpanError(f"windows and convolutions can be rolled back by {kv.recorded} tokens here, not by {back}")
        elif kv.computed and not self.span.recurrent:
            kv.cache.crop(-back)
        if piece.reorder:
            kv.cache.reorder_cache(torch.tensor(piece.reorder, device=self.span.device))
        kv.computed = piece.position

    def run(self, pieces: Sequence[Piece]) -> list[torch.Tensor | Exception]:
        return [self._try_one(piece) for piece in pieces]

    def _try_one(self, piece: Piece) -> torch.Tensor | Exception:
        try:
            return self._run_one(piece)
        except Exception as error:  # the others' caches have moved on: this must not be tried again together
            return error

    def _run_one(self, piece: Piece) -> torch.Tensor:
        kv: CacheKV = piece.kv
        stop = piece.position + piece.hidden.shape[1]
        columns = torch.arange(stop, device=self.span.device).expand(len(kv.pads), -1)
        positions, mask, kept = columns[:, piece.position :], None, None
        if any(kv.pads):
            pads = torch.tensor(kv.pads, device=self.span.device)[:, None]
            positions, mask = (positions - pads).clamp(min=0), (columns >= pads).long()
            kept = mask[:, piece.position :, None].bool()
        out = self.span.forward(
            piece.hidden,
            kv.cache,
            start=kv.start,
            stop=kv.stop,
            position_ids=positions,
            attention_mask=mask,
            reach=kv.length,
            together=piece.replay,
        )
        kv.computed, kv.recorded = stop, piece.hidden.shape[1]
        _clear(kv.cache, [row for row, pad in enumerate(kv.pads) if pad >= stop])
        if kept is not None:
            out = torch.where(kept, out, 0)  # whatever attends to nothing may not even be a number
        return out.cpu()


class TokenRunner(SingleRunner):
    """For recurrent state that Transformers goes on from by single tokens only: several begin it anew."""

    def _run_one(self, piece: Piece) -> torch.Tensor:
        if not piece.position:
            return super()._run_one(piece)
        kv, tokens = piece.kv, torch.split(piece.hidden, 1, 1)
        steps = [Piece(kv, at, token, replay=piece.replay) for at, token in enumerate(tokens, piece.position)]
        return torch.cat([super(TokenRunner, self)._run_one(step) for step in steps], 1)


def _clear(cache: Cache, rows: Sequence[int]) -> None:
    """Make rows that were padding so far begin anew: Transformers lets a single token of it into recurrent state."""
    for layer in cache.layers if rows else ():
        for states in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {})):
            for state in states.values():
                if state is not None:
                    state[rows] = 0
