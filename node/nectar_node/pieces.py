"""From what a scheduler grants to what a runner computes, and back."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch

from nectar_node.runner import Piece
from nectar_node.scheduler import Grant, Work

Result = tuple[Work, torch.Tensor | Exception]


def piece_of(grants: Sequence[Grant]) -> Piece:
    """Grants of one flow that follow each other."""
    parts = [grant.hidden for grant in grants]
    work = grants[0].work
    hidden = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return Piece(work.kv, work.position + work.done, hidden, () if work.done else work.reorder, work.replay)


def all_shares(pieces: Iterable[Sequence[Grant]], outputs: Sequence[torch.Tensor | Exception]) -> list[Result]:
    """What each grant has of an iteration's outputs."""
    return [result for joined, output in zip(pieces, outputs, strict=True) for result in shares_of(joined, output)]


def shares_of(grants: Sequence[Grant], output: torch.Tensor | Exception) -> list[Result]:
    """What each of a piece's grants has of its output, in memory of its own."""
    if isinstance(output, Exception) or len(grants) == 1:
        return [(grant.work, output) for grant in grants]
    parts = torch.split(output, [grant.tokens for grant in grants], 1)
    return [(grant.work, part.clone()) for grant, part in zip(grants, parts, strict=True)]


def groups_of(grants: Sequence[Grant]) -> list[list[Grant]]:
    """Works that run through the same blocks, together."""

    def blocks(grant: Grant) -> tuple[int, int]:
        return grant.work.kv.start, grant.work.kv.stop

    return [list(group) for _, group in groupby(sorted(grants, key=blocks), blocks)]
