"""Hidden states as the bytes that travel, for their digests."""

import ctypes

import torch


def vectors(hidden: torch.Tensor) -> bytes:
    """The numbers of hidden states [rows, positions, width], row by row, as they lie in memory."""
    flat = hidden if hidden.is_cpu and hidden.is_contiguous() else hidden.cpu().contiguous()
    return ctypes.string_at(flat.data_ptr(), flat.nbytes)
