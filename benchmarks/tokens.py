"""Greedy tokens of a swarm, held against those of the whole model on this machine."""

from typing import Any

import torch

from benchmarks.models import VOCABULARY

TIE_GAP = 1e-3


class WrongTokensError(Exception):
    """A swarm's tokens are not the whole model's."""


def random_prompts(count: int, length: int, seed: int) -> torch.Tensor:
    """Token IDs [count, length], the same for the same seed."""
    return torch.randint(2, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def count_ties(local: Any, rows: torch.Tensor, prompt: int, expected: torch.Tensor | None = None) -> int:
    """How many of the tokens after `prompt` are not the whole model's own choice, but within 1e-3 of its logit.

    `expected` is what the whole model generated, if that is known: rows equal to it need no second look. Raises
    WrongTokensError for a token that is no tie.
    """
    if expected is not None:
        rows = rows[(rows != expected).any(1)]
    if not len(rows):
        return 0
    with torch.no_grad():
        logits = local(rows[:, :-1]).logits[:, prompt - 1 :]
    chosen = logits.gather(-1, rows[:, prompt:, None])[..., 0]
    gaps = logits.max(-1).values - chosen
    if bool((gaps >= TIE_GAP).any()):
        row, at = (int(index) for index in (gaps >= TIE_GAP).nonzero()[0])
        raise WrongTokensError(
            f"token {at + 1} after the prompt is {int(rows[row, prompt + at])}, the whole model's is "
            f"{int(logits[row, at].argmax())}, by {float(gaps[row, at]):.4f} in its logit"
        )
    return int((gaps > 0).sum())
