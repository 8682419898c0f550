"""Hidden states as bytes: dtype u8 | batch u16 | tokens u32 | width u32 | the numbers as they lie in memory.

Nothing is converted on the way: float32 stays float32. Little-endian numbers, as every supported machine keeps them.
"""

import ctypes
import math
import struct

import torch
from nectar_protocol.codec import Reader
from nectar_protocol.errors import MalformedError

DTYPES: dict[int, torch.dtype] = {0: torch.float32, 1: torch.bfloat16, 2: torch.float16}
CODES = {dtype: code for code, dtype in DTYPES.items()}
MAX_BATCH = 512
HEAD = struct.Struct("!BHII")


def pack_tensor(hidden: torch.Tensor, before: bytes = b"") -> bytes:
    """Bytes of hidden states [batch, tokens, width] in float32, bfloat16 or float16, behind those of `before`.

    Raises MalformedError for a shape that is not sent.
    """
    try:
        head = HEAD.pack(CODES[hidden.dtype], *hidden.shape)
    except struct.error as error:
        raise MalformedError(f"a tensor of shape {list(hidden.shape)}: {error}") from error
    flat = hidden if hidden.is_cpu and hidden.is_contiguous() else hidden.cpu().contiguous()
    # Not by way of numpy: its views take ten times as long as the copy, for the 8 KB of a token.
    return b"".join((before, head, ctypes.string_at(flat.data_ptr(), flat.nbytes)))


def read_tensor(reader: Reader) -> torch.Tensor:
    """The rest of a message as a tensor [batch, tokens, width]. Raises MalformedError before anything is allocated."""
    code, batch, tokens, width = HEAD.unpack(reader.take(HEAD.size))
    if code not in DTYPES:
        raise MalformedError(f"tensor dtype {code} is unknown")
    if not 0 < batch <= MAX_BATCH or not tokens or not width:
        raise MalformedError(f"a tensor of shape [{batch}, {tokens}, {width}]")
    size = batch * tokens * width * DTYPES[code].itemsize
    if size != len(reader.data) - reader.offset:
        raise MalformedError(f"a tensor of {size} bytes in {len(reader.data) - reader.offset}")
    # A bytearray, because torch wants memory that it may write to.
    numbers = bytearray(memoryview(reader.data)[reader.offset :])
    return torch.frombuffer(numbers, dtype=DTYPES[code]).view(batch, tokens, width)


def all_finite(hidden: torch.Tensor) -> bool:
    """No NaN and no infinity among these numbers: one kernel, where `torch.isfinite` and its `all` take six."""
    return math.isfinite(hidden.sum(dtype=torch.float32))
