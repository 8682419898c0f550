"""Small random checkpoints for the client's own part of a model, and candidates for routes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nectar.routing import Candidate
from nectar_protocol.identity import Identity

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=None, tie_word_embeddings=False,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=128, hidden_size=64, n_layer=6, n_head=4, eos_token_id=None),
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint in many small shards; written once."""

    @cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).save_pretrained(folder, max_shard_size="20KB")
        return folder

    return make


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """A node by number, with the blocks it serves and what it costs."""

    def make(number: int, start: int, stop: int, decode_s: float = 0.01, rtt_s: float = 0.01) -> Candidate:
        peer = Identity.from_seed(number.to_bytes(32, "big")).peer_id
        return Candidate(peer, (), start, stop, decode_s, rtt_s)

    return cache(make)
