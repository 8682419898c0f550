"""What a model's blocks cost in a ledger's units: the reference rule, on a configuration and the shapes of weights.

Told are softmax attention (plain, grouped or latent; whole, in windows or chunks), linear attention and state-space
layers, dense ones and mixtures of experts. What else there is must not be guessed, since people are paid by it.
"""

import torch
from nectar_protocol.errors import ProtocolError
from nectar_protocol.modelentry import BlockCost
from nectar_protocol.reference import Attention, Experts, LinearAttention, reference_flops
from torch import nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from nectar_swarm.anatomy import examine, find_stack
from nectar_swarm.errors import UnsupportedModelError

# What Transformers' configurations call a layer, and where they say how far it looks.
WINDOWS = {"full_attention": None, "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
# Names of a state's heads, its keys' size and its values' size.
STATES = (
    ("linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"),
    ("linear_num_heads", "linear_head_dim", "linear_head_dim"),
    ("mamba_n_heads", "mamba_d_state", "mamba_d_head"),
    ("mamba_num_heads", "ssm_state_size", "mamba_head_dim"),
)
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
ACTIVE = "num_experts_per_tok"


def block_costs(config: PretrainedConfig) -> tuple[BlockCost, ...]:
    """Of each block. Raises UnsupportedModelError for a model that cannot be served, or that the rule does not tell."""
    text = examine(config).config
    with torch.device("meta"):
        owner, stack = find_stack(MODEL_MAPPING[type(text)](text))
    try:
        return tuple(
            reference_flops(_parameters(block), mixer_of(text, number), experts_of(text, block))
            for number, block in enumerate(getattr(owner, stack))
        )
    except ProtocolError as error:
        raise UnsupportedModelError(f"{text.model_type}: what a block costs cannot be told: {error}") from error


def mixer_of(config: PretrainedConfig, number: int) -> Attention | LinearAttention:
    """How block `number` looks at what came before. Raises UnsupportedModelError."""
    kinds = getattr(config, "layer_types", None)
    kind = kinds[number] if kinds else _only_kind(config)
    if kind == "linear_attention":
        return _state_of(config)
    if kind not in WINDOWS:
        raise UnsupportedModelError(f"{config.model_type}: what a block of kind {kind!r} costs is not known here")
    window = WINDOWS[kind]
    length = getattr(config, window, None) if window else None
    return Attention(config.num_attention_heads, *_head_sizes(config), length or 0)


def experts_of(config: PretrainedConfig, block: nn.Module) -> Experts | None:
    """The experts that a block chooses from; None in a dense one. Raises UnsupportedModelError."""
    counts = {getattr(config, name, None) for name in EXPERTS}
    weights = [(count, total) for module in block.modules() for count, total in _stacked(module) if count in counts]
    if not weights:
        return None
    count, active = weights[0][0], getattr(config, ACTIVE, None)
    if active is None or any(other != count for other, _ in weights):
        raise UnsupportedModelError(f"{config.model_type}: how many experts take part in a token is not known here")
    return Experts(count, active, sum(total for _, total in weights) // count)


def _stacked(module: nn.Module) -> list[tuple[int, int]]:
    """(how many, weights of all) if the module is a row of equal parts: as modules, or as tensors of three axes."""
    if isinstance(module, nn.ModuleList):
        return [(len(module), _parameters(module))]
    own = list(module.parameters(recurse=False))
    rows = {weight.shape[0] for weight in own if weight.dim() == 3}
    if isinstance(module, nn.Conv1d) or len(rows) != 1:
        return []
    (count,) = rows
    return [(count, sum(weight.numel() for weight in own if weight.shape[0] == count))]


def _only_kind(config: PretrainedConfig) -> str:
    """Of a model whose blocks are all alike."""
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return "sliding_attention" if windowed else "full_attention"


def _state_of(config: PretrainedConfig) -> LinearAttention:
    for names in STATES:
        if all(getattr(config, name, None) is not None for name in names):
            heads, key_dim, value_dim = (getattr(config, name) for name in names)
            return LinearAttention(heads, key_dim, value_dim)
    raise UnsupportedModelError(f"{config.model_type}: the size of its blocks' state is not known here")


def _head_sizes(config: PretrainedConfig) -> tuple[int, int]:
    """Of keys and of values."""
    if getattr(config, "kv_lora_rank", None) is not None:
        return config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size, size


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
