"""The draft agrees as often as it says, and the benchmark runs on real nodes."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.speculation import AGREEMENT, KEYS, Scale, make_draft, run
from benchmarks.tokens import random_prompts


def test_the_draft_picks_the_second_choice_at_a_fifth_of_the_positions(tiny_llama: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    ids = random_prompts(1, 1000, 0)
    with torch.no_grad():
        logits, drafted = (model(ids, use_cache=True).logits for model in (whole, make_draft(tiny_llama, 0)))
    best, second = logits.topk(2).indices.unbind(-1)
    choices = drafted.argmax(-1)
    assert ((choices == best) | (choices == second)).all()
    assert abs(float((choices == best).float().mean()) - AGREEMENT) < 0.05


@pytest.mark.slow
def test_speculation_is_measured_on_real_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NECTAR_CACHE", "")  # so that what the run sets is taken back
    values, raw = run(Scale(1, 8))
    assert set(values) == {key.name for key in KEYS}
    assert raw["plain_s"] > raw["drafted_s"] > 0
