"""Where a model's blocks are and what they pass on, found by looking at the model itself. No table of names."""

import copy
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, DynamicCache, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from nectar_swarm.errors import CheckpointError, UnsupportedModelError
from nectar_swarm.source import Source


@dataclass(frozen=True)
class Anatomy:
    """`stack` is the attribute that holds the blocks; `width` the size of what one block hands to the next;
    `block_parameters` the number of weights in each block."""

    config: PretrainedConfig
    stack: str
    returns_tuple: bool
    width: int
    block_parameters: tuple[int, ...]

    @property
    def blocks(self) -> int:
        return len(self.block_parameters)

    def block_of(self, key: str) -> int | None:
        """The number of the block that a tensor belongs to, None for one outside the blocks."""
        match = self._match(key)
        return int(match[1]) if match else None

    def renumber(self, key: str, start: int, stop: int) -> str | None:
        """The tensor's name with its block counted from `start`; None when its block is outside [start, stop)."""
        match = self._match(key)
        if match is None or not start <= int(match[1]) < stop:
            return None
        return f"{key[: match.start(1)]}{int(match[1]) - start}{key[match.end(1) :]}"

    def _match(self, key: str) -> re.Match[str] | None:
        return re.search(rf"(?:^|\.){re.escape(self.stack)}\.(\d+)\.", key)


def load_config(source: Source) -> PretrainedConfig:
    """The model's configuration. Raises CheckpointError or UnsupportedModelError."""
    try:
        return AutoConfig.from_pretrained(source.folder)
    except ValueError as error:
        raise UnsupportedModelError(f"{source.name}: Transformers does not know this kind of model: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{source.name}: its config.json cannot be read: {error}") from error


def find_stack(base: Any) -> tuple[nn.Module, str]:
    """(owner, attribute) of the blocks: the outermost ModuleList with as many items as the model has layers.

    Raises UnsupportedModelError when there is not exactly one.
    """
    layers = base.config.get_text_config(decoder=True).num_hidden_layers
    hits = [
        name for name, module in base.named_modules() if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    hits = [hit for hit in hits if not any(hit.startswith(other + ".") for other in hits if other != hit)]
    if len(hits) != 1:
        raise UnsupportedModelError(f"cannot tell which part of {type(base).__name__} is its stack of blocks: {hits}")
    owner, _, name = hits[0].rpartition(".")
    return base.get_submodule(owner), name


class _Seen(Exception):
    """Leaves the model after its first block."""


def examine(config: PretrainedConfig) -> Anatomy:
    """Run one token through the first block on the meta device, which has shapes and no memory, and look.

    Raises UnsupportedModelError.
    """
    seen: list[object] = []

    def look(module: nn.Module, args: tuple[object, ...], out: object) -> None:
        seen.append(out)
        raise _Seen

    if type(config) not in MODEL_MAPPING:
        raise UnsupportedModelError(f"{config.model_type} is not a kind of language model that Transformers has")
    try:
        with torch.device("meta"), torch.no_grad():
            base = MODEL_MAPPING[type(config)](copy.deepcopy(config)).eval().to(torch.bfloat16)
            owner, stack = find_stack(base)
            blocks = getattr(owner, stack)
            blocks[0].register_forward_hook(look)
            width = base.get_input_embeddings().weight.shape[1]  # of the embedding: some families project it
            base(
                inputs_embeds=torch.zeros(1, 1, width, dtype=torch.bfloat16),
                use_cache=True,
                past_key_values=DynamicCache(config=base.config),
            )
    except _Seen:
        pass
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(f"{config.model_type} does not run as a plain decoder: {error}") from error
    if not seen:
        raise UnsupportedModelError(f"{config.model_type} does not run through its blocks")
    out = seen[0]
    hidden = out[0] if isinstance(out, tuple) else out
    if not isinstance(hidden, torch.Tensor):
        raise UnsupportedModelError(f"a block of {config.model_type} returns {type(out).__name__}, not hidden states")
    parameters = tuple(sum(weight.numel() for weight in block.parameters()) for block in blocks)
    return Anatomy(config, stack, isinstance(out, tuple), hidden.shape[-1], parameters)
