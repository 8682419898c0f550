"""Are these the whole model's tokens? A different one is a tie if its logit is within 1e-3 of the best."""

from enum import Enum
from typing import Any

import torch

TIE_GAP = 1e-3


class Verdict(Enum):
    SAME = "same tokens"
    TIE = "a tie"
    WRONG = "WRONG"


def judge_greedy(local: Any, rows: torch.Tensor, prompt: int) -> Verdict:
    """Each token after the prompt is held against the whole model's choice after the same text."""
    with torch.no_grad():
        logits = local(rows[:, :-1]).logits[:, prompt - 1 :]
    gaps = logits.max(-1).values - logits.gather(-1, rows[:, prompt:, None])[..., 0]
    if bool((gaps >= TIE_GAP).any()):
        return Verdict.WRONG
    return Verdict.TIE if bool((gaps > 0).any()) else Verdict.SAME


def judge_beams(local: Any, row: torch.Tensor, expected: torch.Tensor, prompt: int) -> Verdict:
    """Another text than the whole model's beams found is a tie if the model finds it as likely."""
    if torch.equal(row, expected):
        return Verdict.SAME
    ours, theirs = (_log_likelihood(local, text, prompt) for text in (row, expected))
    return Verdict.TIE if ours > theirs - TIE_GAP else Verdict.WRONG


def _log_likelihood(local: Any, row: torch.Tensor, prompt: int) -> float:
    with torch.no_grad():
        likelihoods = local(row[:, :-1]).logits[:, prompt - 1 :].log_softmax(-1)
    return float(likelihoods.gather(-1, row[:, prompt:, None]).sum())
