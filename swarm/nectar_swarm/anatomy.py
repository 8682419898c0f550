"""Where a model's blocks are and what they pass on, found by looking at the model itself. No table of names."""

import copy
import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from nectar_swarm.errors import CheckpointError, UnsupportedModelError
from nectar_swarm.flow import watch
from nectar_swarm.rope import use_default_frequencies
from nectar_swarm.source import Source


@dataclass(frozen=True)
class Anatomy:
    """`stack` is the attribute that holds the blocks; `width` the size of what one block hands to the next;
    `block_parameters` the number of weights in each block. `nested`: it is the text model of one that reads images or
    sound too, and whose checkpoint holds them all."""

    config: PretrainedConfig
    stack: str
    returns_tuple: bool
    width: int
    block_parameters: tuple[int, ...]
    nested: bool = False

    @property
    def blocks(self) -> int:
        return len(self.block_parameters)

    def name_of(self, key: str) -> str | None:
        """What the model itself calls a tensor of the checkpoint; None for one that is not the text model's."""
        if not self.nested:
            return key
        if match := re.search(r"(?:^|\.)language_model\.(?:model\.)?(.*)", key):
            return match[1] if match[1].startswith("lm_head.") else f"model.{match[1]}"
        return key if key.startswith("lm_head.") else None

    def block_of(self, key: str) -> int | None:
        """The number of the block that a tensor belongs to, None for one outside the blocks."""
        match = self._match(self.name_of(key) or "")
        return int(match[1]) if match else None

    def renumber(self, key: str, start: int, stop: int) -> str | None:
        """The tensor's name with its block counted from `start`; None when its block is outside [start, stop)."""
        key = self.name_of(key) or ""
        match = self._match(key)
        if match is None or not start <= int(match[1]) < stop:
            return None
        return f"{key[: match.start(1)]}{int(match[1]) - start}{key[match.end(1) :]}"

    def _match(self, key: str) -> re.Match[str] | None:
        return re.search(rf"(?:^|\.){re.escape(self.stack)}\.(\d+)\.", key)


def load_config(source: Source) -> PretrainedConfig:
    """The model's configuration. Raises CheckpointError or UnsupportedModelError."""
    try:
        return AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise UnsupportedModelError(
                f"{source.name} brings code of its own (auto_map in its config.json), which is never run here; only "
                "kinds of models that Transformers has can be served"
            ) from error
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


def examine(config: PretrainedConfig) -> Anatomy:
    """Build the model on the meta device, which has shapes and no memory, run two tokens through it, and look.

    Raises UnsupportedModelError, with its reason, for what is no decoder or cannot be divided between machines.
    """
    kind = config.model_type
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{kind} has an encoder beside its decoder; only decoders can be served")
    text = config.get_text_config(decoder=True)
    if type(text) is not type(config) and type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        text = copy.deepcopy(text)
        text.tie_word_embeddings = config.tie_word_embeddings  # there it says so
        return replace(examine(text), nested=True)
    if type(config) not in MODEL_MAPPING:
        raise UnsupportedModelError(f"{kind} is not a kind of language model that Transformers has")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModelError(f"{kind} does not go on with a text: Transformers has no causal LM of this kind")
    try:
        with torch.device("meta"):
            own = copy.deepcopy(config)
            own._attn_implementation = "eager"  # others look whether a mask hides anything: here are no values
            use_default_frequencies(own)  # others are chosen by the values of positions
            base = MODEL_MAPPING[type(config)](own).eval().to(torch.bfloat16)
            owner, stack = find_stack(base)
            blocks = getattr(owner, stack)
            flow = watch(base, blocks)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(f"{kind} does not run as a plain decoder: {error}") from error
    parameters = tuple(sum(weight.numel() for weight in block.parameters()) for block in blocks)
    return Anatomy(config, stack, flow.returns_tuple, flow.width, parameters)
