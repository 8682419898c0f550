"""torch's `varlen_attn` on the CPU, row by row: what the kernel computes from what it is told, and what it demands."""

import torch


def varlen_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: object = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    """Queries [T, heads, d] over keys and values [positions, KV heads, d]; the last query sees a row's last key."""
    assert cu_seq_k is not None
    assert seqused_k is not None
    for bounds in (cu_seq_q, cu_seq_k, seqused_k):
        assert bounds.dtype == torch.int32
    assert len(cu_seq_q) == len(cu_seq_k) == len(seqused_k) + 1
    assert (cu_seq_q[0], cu_seq_q[-1]) == (0, len(query))
    assert (cu_seq_k.diff() >= seqused_k).all(), "a row reaches into the next one's stretch"
    assert cu_seq_k[-1] <= len(key)
    assert max_q == cu_seq_q.diff().max()
    assert max_k == seqused_k.max()
    assert enable_gqa == (query.shape[1] != key.shape[1])
    groups, out = query.shape[1] // key.shape[1], torch.empty_like(query)
    for row, length in enumerate(seqused_k.tolist()):
        start, stop = cu_seq_q[row : row + 2].tolist()
        first = int(cu_seq_k[row])
        keys, values = (tensor[first : first + length].repeat_interleave(groups, 1) for tensor in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[start:stop], keys) * (scale or query.shape[-1] ** -0.5)
        ahead = torch.arange(length)[None] - torch.arange(length - (stop - start), length)[:, None]
        left, right = window_size
        hidden = (ahead > right if right >= 0 else ahead > length) | (ahead < -left if left >= 0 else ahead < -length)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out[start:stop] = torch.einsum("hqk,khd->qhd", weights, values)
    return out
