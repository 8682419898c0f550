"""Attention of one packed batch: the rows of many sessions, each over its own stretch of the arena.

Transformers calls `packed_attention` for every block in place of its own. No mask is ever built for the batch; windows
(Mistral), capped scores (Gemma 2) and sinks (gpt-oss) are honoured row by row. On CUDA in half precision one
variable-length kernel reads all rows where they lie.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from nectar_node.errors import SpanError

if TYPE_CHECKING:
    from nectar_node.packed import Batch

PACKED = "nectar_packed"
MAX_KERNEL_HEAD, KERNEL_HEAD_STEP = 256, 8
UNSAID = -1


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    past: int,
    scaling: float | None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Queries [1, heads, n, d] at positions past … past + n - 1 over keys and values [1, KV heads, past + n, d]."""
    tokens, length, first = query.shape[2], keys.shape[2], 0
    groups = query.shape[1] // keys.shape[1]
    if tokens == 1 and window is None and softcap is None and sinks is None:  # nearly always
        return F.scaled_dot_product_attention(query, keys, values, scale=scaling, enable_gqa=groups != 1)
    if window is not None and past + 1 > window:  # what lies before the first query's window is never seen
        first = past + 1 - window
        keys, values, length = keys[:, :, first:], values[:, :, first:], length - first
    mask = None
    if tokens > 1 and (past or (window is not None and length > window)):
        queries = torch.arange(past, past + tokens, device=query.device)[:, None]
        positions = torch.arange(first, first + length, device=query.device)[None]
        mask = positions <= queries
        if window is not None:
            mask &= positions > queries - window
    causal = tokens > 1 and mask is None
    if softcap is not None or sinks is not None:
        if causal:
            mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()
        return _attend_in_full(query, keys, values, mask, scaling, softcap, sinks)
    # Heads that share keys are dealt with as Transformers does in each case, so that alone the sums are the same.
    if groups > 1 and mask is not None:
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    elif groups > 1 and tokens == 1 and length == window:
        query = query.reshape(1, keys.shape[1], groups, query.shape[-1])
    out = F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=causal, scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )  # fmt: skip
    return out.reshape(1, -1, tokens, out.shape[-1])


def _attend_in_full(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """With scores in memory, for what fused kernels do not know."""
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    scores = query @ keys.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is None:
        return F.softmax(scores, -1, dtype=torch.float32).to(query.dtype) @ values
    column = sinks.reshape(1, -1, 1, 1).expand(-1, -1, query.shape[2], -1).to(scores.dtype)
    scores = torch.cat([scores, column], -1)
    # In the scores' own format, as Transformers does: another rounding would send tokens to other experts.
    return F.softmax(scores - scores.amax(-1, keepdim=True), -1)[..., :-1] @ values


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    nectar_batch: "Batch",
    scaling: float | None = None,
    sliding_window: int | None = UNSAID,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: query [1, heads, T, d] in, [1, T, heads, d] out.

    Raises SpanError for a family whose attention cannot be known from what it passes on.
    """
    if sliding_window == UNSAID:
        if getattr(module.config, "sliding_window", None):
            raise SpanError("its windows are in its masks alone")
        sliding_window = None
    if not nectar_batch.expands and key is not nectar_batch.returned:
        raise SpanError("it changes keys after the cache")
    if softcap is None and s_aux is None and not nectar_batch.expands and _kernel_serves(query, value):
        keys, values = nectar_batch.arena.of(module.layer_idx)
        return _attend_varlen(query, keys, values, nectar_batch, scaling, sliding_window), None
    out = [
        attend(
            query.narrow(2, part.start, part.stop - part.start),
            keys,
            values,
            past=part.past,
            scaling=scaling,
            window=sliding_window,
            softcap=softcap,
            sinks=s_aux,
        )
        for part, keys, values in nectar_batch.pasts(module.layer_idx, key, value)
    ]
    joined = out[0] if len(out) == 1 else torch.cat(out, 2)
    return joined.transpose(1, 2).contiguous(), None


def _kernel_serves(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Is this a case for the variable-length kernel: CUDA, half precision, heads of one size that it knows?"""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    size = query.shape[-1]
    return size == value.shape[-1] <= MAX_KERNEL_HEAD and size % KERNEL_HEAD_STEP == 0 and _is_ampere(query.device)


@cache
def _is_ampere(device: torch.device) -> bool:
    """Or newer."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _attend_varlen(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    batch: "Batch",
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """All rows in one kernel, which reads their stretches of the arena in place (torch.nn.attention.varlen)."""
    from torch.nn.attention.varlen import varlen_attn

    places = batch.places
    out = varlen_attn(
        query[0].transpose(0, 1),
        keys,
        values,
        places.query_bounds,
        places.key_bounds,
        places.longest_query,
        places.longest_key,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != keys.shape[1],
        seqused_k=places.key_lengths,
    )
    assert isinstance(out, torch.Tensor), "no auxiliary output was asked for"
    return out[None]


AttentionInterface.register(PACKED, packed_attention)  # and no mask function: no mask is ever built
