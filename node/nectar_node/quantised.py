"""Weights in 8 or 4 bits, by bitsandbytes through Transformers: what that makes of a block, and whether it is right.

bitsandbytes replaces plain linear layers (and GPT-2's Conv1D) while they load, one tensor at a time, and leaves all
else in full precision without a word. So a block is looked at on the meta device before, and counted afterwards.
"""

import copy
import logging
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import find_stack
from torch import nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.pytorch_utils import Conv1D

from nectar_node.errors import ProfileError, SpanError

QUANTISED = (Profile.INT8, Profile.NF4)
LIBRARIES = ("bitsandbytes", "accelerate")
NF4_BLOCK = 64  # weights that share a scale
NF4_CPU_ROWS = 32  # outputs that the CPU's kernel computes together
MAX_KEPT_SHARE = 0.01  # of a block's weights: routers and small convolutions may stay in full precision


def load_blocks_on_meta(config: PretrainedConfig) -> list[nn.Module]:
    """The model's blocks, with shapes and no memory."""
    with torch.device("meta"):
        base = MODEL_MAPPING[type(config)](copy.deepcopy(config))
    owner, stack = find_stack(base)
    return [*getattr(owner, stack)]


def shapes_of(block: nn.Module) -> dict[str, tuple[int, int]]:
    """{name: (outputs, inputs)} of the layers that bitsandbytes replaces. It replaces no subclass of nn.Linear."""
    return {
        name: _shape(layer) for name, layer in block.named_modules() if type(layer) is nn.Linear or _is_conv1d(layer)
    }


def _shape(layer: nn.Module) -> tuple[int, int]:
    rows, columns = layer.get_parameter("weight").shape
    return (columns, rows) if _is_conv1d(layer) else (rows, columns)


def _is_conv1d(layer: nn.Module) -> bool:
    return isinstance(layer, Conv1D)


def block_bytes(block: nn.Module, profile: Profile, dtype: torch.dtype) -> int:
    """What a block's weights take: those of its linear layers with their scales, all others in `dtype`."""
    shapes = shapes_of(block).values()
    others = sum(weight.numel() for weight in block.parameters()) - sum(rows * columns for rows, columns in shapes)
    return others * dtype.itemsize + sum(_packed_bytes(profile, *shape) for shape in shapes)


def _packed_bytes(profile: Profile, outputs: int, inputs: int) -> int:
    """int8 has a float32 scale for each output, nf4 one for every 64 weights."""
    weights = outputs * inputs
    return weights + 4 * outputs if profile is Profile.INT8 else -(-weights // 2) + 4 * -(-weights // NF4_BLOCK)


def refuse_unless_right(blocks: Sequence[nn.Module], profile: Profile, device: torch.device) -> None:
    """Raise ProfileError where it can be seen in advance that these blocks would not become what `profile` says."""
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise _refusal(profile, f"needs {' and '.join(missing)}, which pip install 'nectar-swarm[node]' brings")
    if device.type not in ("cpu", "cuda"):
        raise _refusal(profile, f"is not to be had on {device.type}")
    for block in blocks:
        _refuse_kept(block, profile)
    if profile is Profile.NF4:
        for name, shape in ((name, shape) for block in blocks for name, shape in shapes_of(block).items()):
            _refuse_shape(name, shape, device)


def _refuse_kept(block: nn.Module, profile: Profile) -> None:
    """Fused experts are three-dimensional parameters, and some families have linear layers of their own kind."""
    shapes, weights = shapes_of(block), dict(block.named_parameters())
    kept = {
        name: weight.numel()
        for name, weight in weights.items()
        if weight.ndim > 1 and name.removesuffix(".weight") not in shapes
    }
    if sum(kept.values()) > MAX_KEPT_SHARE * sum(weight.numel() for weight in weights.values()):
        largest = max(kept, key=lambda name: kept[name])
        owner = type(block.get_submodule(largest.rpartition(".")[0])).__name__
        what = "experts in one tensor" if weights[largest].ndim > 2 else "not a plain linear layer"
        raise _refusal(profile, f"would leave {largest} ({owner}, {what}) in full precision")


def _refuse_shape(name: str, shape: tuple[int, int], device: torch.device) -> None:
    """Groups of weights that cross rows are read wrongly or not at all by bitsandbytes' kernels for CPUs."""
    outputs, inputs = shape
    if inputs % NF4_BLOCK:
        raise _refusal(Profile.NF4, f"needs inputs in multiples of {NF4_BLOCK}, and {name} has {inputs}")
    if device.type == "cpu" and outputs % NF4_CPU_ROWS:
        raise _refusal(Profile.NF4, f"needs outputs in multiples of {NF4_CPU_ROWS} on a CPU, and {name} has {outputs}")


def _refusal(profile: Profile, reason: str) -> ProfileError:
    others = "int8, bf16 or f32" if profile is Profile.NF4 and "multiples" in reason else "bf16, fp16 or f32"
    return ProfileError(f"--profile {profile.name.lower()} {reason}; choose {others}")


def loading_options(profile: Profile, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What from_pretrained needs to quantise each tensor as it comes, on its device."""
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of every cast, and of a kernel not installed
    config = BitsAndBytesConfig(
        load_in_8bit=profile is Profile.INT8,
        load_in_4bit=profile is Profile.NF4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[],  # else the last module is taken for a head, and left out
    )
    return {"quantization_config": config, "device_map": {"": device}}


def audit(blocks: Iterable[nn.Module], meant: Sequence[nn.Module], profile: Profile) -> None:
    """Raise SpanError unless every layer that was meant to be is quantised, has its size, and finite scales.

    `meant` are the same blocks on the meta device. To be asked before the first forward, which packs anew.
    """
    for number, (block, expected) in enumerate(zip(blocks, meant, strict=True)):
        layers = dict(quantised_layers(block))
        shapes = shapes_of(expected)
        if wrong := layers.keys() ^ shapes.keys():
            raise SpanError(f"{min(wrong)} of the span's block {number} is not as {profile.name.lower()} makes it")
        for name, layer in layers.items():
            scales = scales_of(layer)
            nbytes = layer.weight.nbytes + scales.nbytes
            if nbytes != _packed_bytes(profile, *shapes[name]):
                raise SpanError(f"{name} of the span's block {number} takes {nbytes} bytes in {profile.name.lower()}")
            if not torch.isfinite(scales).all():
                raise SpanError(f"{name} of the span's block {number} is too large for {profile.name.lower()}")


def quantised_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """(name, layer) of those that bitsandbytes has made, which has been imported then."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Linear4bit | Linear8bitLt)]


def scales_of(layer: Any) -> torch.Tensor:
    """The numbers that a layer's weights are multiplied by. int8 moves them at the first forward."""
    state = getattr(layer.weight, "quant_state", None)
    if state is not None:
        return state.absmax
    return layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
