"""A node takes the memory it declares, and opens only the shards that hold its blocks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.models import SIZES

KV_TOKENS = 4096
BEYOND_BYTES = 400 << 20  # interpreter, libraries and what a step needs


def declared_kv_bytes(blocks: int) -> int:
    shape: dict[str, Any] = SIZES["tiny"]
    head_dim = shape["hidden_size"] // shape["num_attention_heads"]
    return 2 * blocks * shape["num_key_value_heads"] * head_dim * 4 * KV_TOKENS


def test_memory_stays_within_weights_declared_kv_and_400_mb_when_the_kv_is_full(
    start_node: Callable[..., Any], connect: Callable[..., Any], tokens: Callable[..., torch.Tensor], tiny_llama: Path
) -> None:
    node = start_node("0:8", options=("--kv-tokens", str(KV_TOKENS)))
    remote = connect(node.address)
    length = KV_TOKENS // 2
    with remote.session(length) as first, remote.session(length) as second:
        for session in (first, second):
            remote.generate(tokens(length - 8), session=session, max_new_tokens=8, do_sample=False)
        used = psutil.Process(node.process.pid).memory_full_info().pss  # what is shared, shared out
    weights = sum(path.stat().st_size for path in tiny_llama.glob("*.safetensors"))
    assert used <= weights + declared_kv_bytes(8) + BEYOND_BYTES, f"{used >> 20} MiB"


def test_a_node_opens_only_the_shards_of_its_blocks(two_nodes: tuple[Any, Any], tiny_llama: Path) -> None:
    weight_map = json.loads((tiny_llama / "model.safetensors.index.json").read_text())["weight_map"]
    for node, blocks in zip(two_nodes, (range(5), range(3, 8)), strict=True):
        names = tuple(f"model.layers.{block}." for block in blocks)
        needed = {shard for key, shard in weight_map.items() if key.startswith(names)}
        assert set(node.serving["shards"]) == needed
        assert len(needed) < len(set(weight_map.values()))
