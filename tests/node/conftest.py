"""Small random checkpoints of several families, the whole models they came from, and spans of them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nectar_node.selftest import self_test
from nectar_node.span import SpanModel
from nectar_swarm.anatomy import Anatomy, examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.source import LocalFolder

VOCAB, BLOCKS = 128, 6
COMMON = dict(
    vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=BLOCKS, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    initializer_range=0.2, tie_word_embeddings=False,
)  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**COMMON),
    "mistral": lambda: transformers.MistralConfig(**COMMON, sliding_window=8),
    "qwen3": lambda: transformers.Qwen3Config(**COMMON, head_dim=16),
    "mixtral": lambda: transformers.MixtralConfig(
        **COMMON, num_local_experts=4, num_experts_per_tok=2, sliding_window=None
    ),
    "gemma2": lambda: transformers.Gemma2Config(**COMMON, head_dim=16, sliding_window=8, query_pre_attn_scalar=16),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=64, n_layer=BLOCKS, n_head=4, n_positions=256, initializer_range=0.2, pad_token_id=0,
        bos_token_id=1, eos_token_id=None,
    ),
    "opt": lambda: transformers.OPTConfig(**COMMON, ffn_dim=96, word_embed_proj_dim=64, init_std=0.2),
    "bloom": lambda: transformers.BloomConfig(**COMMON, n_layer=BLOCKS, n_head=4),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **COMMON, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint in many small shards, in the format that hubs hold; written once."""

    @cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # or a wrong norm or bias would not show
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder, max_shard_size="60KB")
        return folder

    return make


@pytest.fixture(scope="session")
def anatomy_of(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Anatomy]:
    return cache(lambda family: examine(load_config(LocalFolder(checkpoint_folder(family)))))


@pytest.fixture(scope="session")
def whole_model(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """The family's causal LM as Transformers loads it."""

    @cache
    def load(family: str) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint_folder(family), dtype=torch.float32)
        return model.eval().requires_grad_(False)

    return load


@pytest.fixture(scope="session")
def load_span(
    checkpoint_folder: Callable[[str], Path], anatomy_of: Callable[[str], Anatomy]
) -> Callable[[str, int, int], SpanModel]:
    """Blocks [start, stop) of a family, loaded once and tested."""

    @cache
    def load(family: str, start: int, stop: int) -> SpanModel:
        checkpoint = Checkpoint(LocalFolder(checkpoint_folder(family)))
        span = SpanModel(checkpoint, anatomy_of(family), start, stop, torch.float32, torch.device("cpu"))
        self_test(span)
        return span

    return load
