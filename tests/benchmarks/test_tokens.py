"""A benchmark that checks tokens must see the wrong ones, and tell them from ties."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.tokens import TIE_GAP, WrongTokensError, count_ties, random_prompts

VOCABULARY, PROMPT = 8, 3


def model(gap: float) -> Any:
    """A whole model that always prefers token 5, and token 6 by `gap` less."""

    def forward(ids: torch.Tensor) -> Any:
        logits = torch.zeros(*ids.shape, VOCABULARY)
        logits[..., 5], logits[..., 6] = 1.0, 1.0 - gap
        return SimpleNamespace(logits=logits)

    return forward


def row(*tokens: int) -> torch.Tensor:
    return torch.tensor([[2, 3, 4, *tokens]])


def test_its_own_tokens_are_no_ties() -> None:
    assert count_ties(model(0.5), row(5, 5, 5), PROMPT) == 0


def test_a_token_as_good_as_the_best_is_a_tie() -> None:
    assert count_ties(model(TIE_GAP / 2), row(5, 6, 6), PROMPT) == 2


def test_any_other_token_is_an_error() -> None:
    with pytest.raises(WrongTokensError, match=r"token 2 after the prompt is 6, the whole model's is 5"):
        count_ties(model(0.5), row(5, 6, 5), PROMPT)


def test_only_rows_that_differ_from_what_is_expected_are_looked_at() -> None:
    rows = torch.cat([row(1, 1), row(5, 5)])
    assert count_ties(model(0.5), rows, PROMPT, rows) == 0
    with pytest.raises(WrongTokensError):
        count_ties(model(0.5), rows, PROMPT, torch.cat([row(5, 5), row(5, 5)]))


def test_prompts_are_the_same_for_the_same_seed() -> None:
    assert torch.equal(random_prompts(2, 5, 1), random_prompts(2, 5, 1))
    assert not torch.equal(random_prompts(2, 5, 1), random_prompts(2, 5, 2))
