"""Sessions by hand: how a runner is driven, and what each session should give alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nectar_node.runner import Piece, Runner
from nectar_node.span import SpanModel

START, STOP, WIDTH = 1, 5, 64  # of the spans that the tests share


@dataclass(frozen=True)
class Turn:
    """One step of a session: hidden states [batch, tokens, width] at a position, with its rows in a new order first."""

    position: int
    hidden: torch.Tensor
    reorder: tuple[int, ...] = ()


def noise(batch: int, tokens: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def turns_of(hidden: torch.Tensor, *sizes: int) -> list[Turn]:
    """Consecutive steps of these many tokens."""
    parts = hidden.split(list(sizes), 1)
    return [Turn(sum(sizes[:at]), part) for at, part in enumerate(parts)]


@torch.inference_mode()
def run(runner: Runner, *turns: tuple[Any, Turn]) -> list[torch.Tensor]:
    """One iteration of several sessions, each given as its KV and its step."""
    pieces = [Piece(kv, turn.position, turn.hidden, turn.reorder) for kv, turn in turns]
    for piece in pieces:
        runner.prepare(piece)
    outputs = []
    for output in runner.run(pieces):
        assert isinstance(output, torch.Tensor), output
        outputs.append(output)
    return outputs


def cached(span: SpanModel, turns: Sequence[Turn], start: int = START, stop: int = STOP) -> list[torch.Tensor]:
    """What consecutive steps give with Transformers' own cache."""
    cache, outputs = span.new_cache(start, stop), []
    for turn in turns:
        if turn.position and not span.recurrent:
            cache.crop(0)
        batch, tokens, _ = turn.hidden.shape
        positions = torch.arange(turn.position, turn.position + tokens, device=span.device).expand(batch, -1)
        outputs.append(span.forward(turn.hidden, cache, start=start, stop=stop, position_ids=positions).cpu())
    return outputs


def recomputed(
    span: SpanModel, turns: Sequence[Turn], pads: Sequence[int], start: int = START, stop: int = STOP
) -> list[torch.Tensor]:
    """What any steps give when every row is computed from nothing, alone and without a cache; zeros for padding."""
    rows = [torch.zeros(0, WIDTH, dtype=span.dtype) for _ in pads]  # what each row has been given, padding included
    outputs = []
    for turn in turns:
        rows = [row[: turn.position] for row in rows]
        if turn.reorder:
            rows = [rows[source] for source in turn.reorder]
        rows = [torch.cat([row, new]) for row, new in zip(rows, turn.hidden, strict=True)]
        output = torch.zeros_like(turn.hidden)
        for row, pad, target in zip(rows, pads, output, strict=True):
            if len(row) > pad:
                positions = torch.arange(len(row) - pad)[None]
                whole = span.forward(row[None, pad:], None, start=start, stop=stop, position_ids=positions)[0]
                count = min(len(target), len(whole))
                target[-count:] = whole[-count:]
        outputs.append(output)
    return outputs
