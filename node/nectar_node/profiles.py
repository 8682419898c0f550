"""In which format a node keeps its weights: full or half precision, or 8 or 4 bits.

Pure, but for looking at the model's blocks on the meta device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import Anatomy
from transformers import PretrainedConfig

from nectar_node.errors import ProfileError
from nectar_node.quantised import QUANTISED, block_bytes, load_blocks_on_meta, refuse_unless_right

DTYPES = {Profile.F32: torch.float32, Profile.BF16: torch.bfloat16, Profile.FP16: torch.float16}
PROFILES = {dtype: profile for profile, dtype in DTYPES.items()}
NAMES = {profile.name.lower(): profile for profile in Profile}
EXACT_SHARE = 4  # on a CPU, float32 is kept as long as so many such nodes hold the model


@dataclass(frozen=True)
class Format:
    """`dtype` is of what is not quantised, of hidden states and of KV; `block_bytes` what each block's weights take."""

    profile: Profile
    dtype: torch.dtype
    block_bytes: tuple[int, ...]


def choose_format(
    wanted: str, anatomy: Anatomy, device: torch.device, fitting: Callable[[Format], int], blocks: int, named: bool
) -> Format:
    """The format that an operator names, or for `auto` the best of which as many as possible of `blocks` fit.

    `fitting` says how many do. `named`: the operator wants these blocks and no fewer. Raises ProfileError.
    """
    _refuse_packed(anatomy.config)
    own = getattr(anatomy.config, "dtype", None)
    if wanted != "auto":
        if wanted not in NAMES:
            raise ProfileError(f"{wanted!r} is not a profile; choose auto, {', '.join(NAMES)}")
        return make_format(NAMES[wanted], anatomy, device, own)
    formats = []
    for profile in candidates(device, own):
        try:
            formats.append(make_format(profile, anatomy, device, own))
        except ProfileError:
            if not formats:
                raise
    enough = blocks if named or device.type != "cpu" else -(-blocks // EXACT_SHARE)
    return formats[best([fitting(one) for one in formats], blocks, enough)]


def _refuse_packed(config: PretrainedConfig) -> None:
    """Checkpoints that a hub holds quantised need loaders of their own, which nobody has tried on a span."""
    if packed := getattr(config, "quantization_config", None):
        method = packed.get("quant_method") if isinstance(packed, dict) else packed.quant_method
        raise ProfileError(
            f"this checkpoint is quantised already ({method}); choose one in bfloat16, float16 or float32"
        )


def candidates(device: torch.device, own: torch.dtype | None) -> tuple[Profile, ...]:
    """What `auto` may choose, the most faithful first: float32 on a CPU, else the checkpoint's own `dtype`."""
    if device.type == "cpu":
        return (Profile.F32, Profile.BF16, *QUANTISED)
    first = PROFILES.get(own, Profile.BF16) if own else Profile.BF16
    return (first, *((Profile.BF16,) if first is Profile.F32 else ()), *QUANTISED)


def best(fitting: Sequence[int], blocks: int, enough: int) -> int:
    """Which of several formats, the most faithful first, given how many of the blocks fit in each.

    The first if enough fit in it; else the first in which all fit; else that in which most fit.
    """
    if fitting[0] >= enough:
        return 0
    most = min(blocks, max(fitting))
    return next(index for index, count in enumerate(fitting) if count >= most)


def make_format(profile: Profile, anatomy: Anatomy, device: torch.device, own: torch.dtype | None) -> Format:
    """Raises ProfileError where the blocks would not become what the profile says."""
    if profile not in QUANTISED:
        dtype = DTYPES[profile]
        return Format(profile, dtype, tuple(count * dtype.itemsize for count in anatomy.block_parameters))
    blocks = load_blocks_on_meta(anatomy.config)
    refuse_unless_right(blocks, profile, device)
    dtype = torch.float16 if own is torch.float16 and device.type == "cuda" else torch.bfloat16
    return Format(profile, dtype, tuple(block_bytes(block, profile, dtype) for block in blocks))
