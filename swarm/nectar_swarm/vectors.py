"""The digests of hidden states: what both ends of a link commit to, and compare."""

import ctypes

import torch
from nectar_protocol.commitment import Digests, digests


def vector_digests(salt: bytes, hidden: torch.Tensor) -> Digests:
    """Digests [batch][tokens] of hidden states [batch, tokens, width], of their bytes as a STEP carries them.

    Raises MalformedError for a salt of another length than 32.
    """
    rows, positions, _ = hidden.shape
    flat = hidden if hidden.is_cpu and hidden.is_contiguous() else hidden.cpu().contiguous()
    return digests(salt, ctypes.string_at(flat.data_ptr(), flat.nbytes), rows, positions)
