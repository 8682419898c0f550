"""Attention over a slice of the past is that of Transformers over a mask, whatever a family adds to it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.arena import Arena, Row
from nectar_node.attention import attend, packed_attention
from nectar_node.errors import SpanError
from nectar_node.packed import Batch, Part
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as attend_softcapped
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as attend_with_sinks

KV_HEADS, SIZE, SCALING = 2, 16, 0.3
pasts, tokens = st.integers(0, 40), st.integers(1, 12)
windows = st.none() | st.integers(1, 50)
groups = st.sampled_from([1, 2, 4])
NOISE = 1e-5


class Heads(nn.Module):
    """As much of an attention module as Transformers' functions look at."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, True
        self.sinks = torch.randn(KV_HEADS * groups, generator=torch.Generator().manual_seed(5))
        self.eval()


def tensors(past: int, tokens: int, groups: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, and keys and values of all positions."""
    generator = torch.Generator().manual_seed(seed)
    heads = ((KV_HEADS * groups, tokens), (KV_HEADS, past + tokens), (KV_HEADS, past + tokens))
    query, keys, values = (torch.randn(1, count, length, SIZE, generator=generator) for count, length in heads)
    return query, keys, values


def seen(past: int, tokens: int, window: int | None) -> torch.Tensor:
    """Which positions each query sees: those not after it, and not before its window."""
    queries = torch.arange(past, past + tokens)[:, None]
    positions = torch.arange(past + tokens)[None]
    within = positions > queries - window if window is not None else True
    return ((positions <= queries) & within)[None, None]


def additive(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


@given(pasts, tokens, windows, groups)
def test_a_piece_attends_to_its_past_and_its_window_as_with_a_mask(
    past: int, tokens: int, window: int | None, groups: int
) -> None:
    query, keys, values = tensors(past, tokens, groups)
    mask = seen(past, tokens, window)
    expected, _ = sdpa_attention_forward(Heads(groups), query, keys, values, mask, scaling=SCALING)
    out = attend(query, keys, values, past=past, scaling=SCALING, window=window)
    torch.testing.assert_close(out.transpose(1, 2), expected, rtol=0, atol=NOISE)


@given(pasts, tokens, windows, groups)
def test_scores_are_capped_as_transformers_caps_them(past: int, tokens: int, window: int | None, groups: int) -> None:
    query, keys, values = tensors(past, tokens, groups)
    mask = additive(seen(past, tokens, window))
    expected, _ = attend_softcapped(Heads(groups), query, keys, values, mask, scaling=SCALING, softcap=0.7)
    out = attend(query, keys, values, past=past, scaling=SCALING, window=window, softcap=0.7)
    torch.testing.assert_close(out.transpose(1, 2), expected, rtol=0, atol=NOISE)


@given(pasts, tokens, windows, groups)
def test_sinks_take_their_share_as_in_transformers(past: int, tokens: int, window: int | None, groups: int) -> None:
    query, keys, values = tensors(past, tokens, groups)
    module = Heads(groups)
    expected, _ = attend_with_sinks(module, query, keys, values, additive(seen(past, tokens, window)), scaling=SCALING)
    out = attend(query, keys, values, past=past, scaling=SCALING, window=window, sinks=module.sinks)
    torch.testing.assert_close(out.transpose(1, 2), expected, rtol=0, atol=NOISE)


@given(pasts, tokens, windows)
def test_what_lies_before_the_window_or_after_the_piece_is_not_even_looked_at(
    past: int, tokens: int, window: int | None
) -> None:
    query, keys, values = tensors(past, tokens, 2)
    out = attend(query, keys, values, past=past, scaling=SCALING, window=window)
    first = 0 if window is None else max(0, past + 1 - window)
    keys[:, :, :first] = values[:, :, :first] = float("nan")
    assert torch.equal(attend(query, keys, values, past=past, scaling=SCALING, window=window), out)


def test_without_a_scaling_it_is_that_of_the_head_size() -> None:
    query, keys, values = tensors(3, 2, 1)
    for special in ({}, {"softcap": 5.0}):
        plain = attend(query, keys, values, past=3, scaling=None, **special)
        torch.testing.assert_close(plain, attend(query, keys, values, past=3, scaling=SIZE**-0.5, **special))


# What a family hands over


def call(batch: Batch, key: torch.Tensor, config: Any, **passed: Any) -> torch.Tensor:
    module = SimpleNamespace(layer_idx=0, config=config)
    query = torch.ones(1, KV_HEADS, 1, SIZE)
    return packed_attention(module, query, key, key, None, nectar_batch=batch, scaling=SCALING, **passed)[0]


@pytest.fixture
def batch() -> Batch:
    batch = Batch(Arena(1, 8, torch.device("cpu")), [Part(Row(0), 0, 1, 0)], expands=False)
    batch.update(torch.ones(1, KV_HEADS, 1, SIZE), torch.ones(1, KV_HEADS, 1, SIZE), 0)
    return batch


@pytest.mark.parametrize("window", [{"sliding_window": 4}, {"sliding_window": None}])
def test_a_family_that_tells_its_window_is_taken(batch: Batch, window: dict[str, int | None]) -> None:
    assert batch.returned is not None
    assert call(batch, batch.returned, SimpleNamespace(sliding_window=4), **window).shape == (1, 1, KV_HEADS, SIZE)


def test_a_family_that_has_windows_and_does_not_tell_them_is_refused(batch: Batch) -> None:
    assert batch.returned is not None
    call(batch, batch.returned, SimpleNamespace(sliding_window=0))
    call(batch, batch.returned, SimpleNamespace())
    with pytest.raises(SpanError, match="windows"):
        call(batch, batch.returned, SimpleNamespace(sliding_window=4))


def test_a_family_that_changes_its_keys_after_the_cache_is_refused(batch: Batch) -> None:
    with pytest.raises(SpanError, match="after the cache"):
        call(batch, torch.ones(1, KV_HEADS, 1, SIZE), SimpleNamespace())
