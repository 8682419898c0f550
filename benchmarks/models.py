"""Random-weight Llamas to measure with: real shapes, meaningless text."""

from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "intermediate_size": 688,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "wide": {
        "hidden_size": 512,
        "num_hidden_layers": 12,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "half": {  # the mid model's blocks, half as many, and weights as small as Transformers begins with
        "hidden_size": 1024,
        "num_hidden_layers": 8,
        "intermediate_size": 2816,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "initializer_range": 0.02,
    },
    "mid": {
        "hidden_size": 1024,
        "num_hidden_layers": 16,
        "intermediate_size": 2816,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    },
}
VOCABULARY = 512


def make_llama(size: str, folder: Path) -> Path:
    """A float32 checkpoint of the size in `folder`, in several shards."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.utils import logging

    path = folder / size
    if not (path / "config.json").is_file():
        torch.manual_seed(0)
        shape = SIZES[size]
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=None,
            pad_token_id=0,
            **{"initializer_range": 0.2 if size == "tiny" else 0.05} | shape,  # the next token depends on the text
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.generation_config.eos_token_id = None
        logging.disable_progress_bar()
        model.save_pretrained(path, max_shard_size="3MB" if size == "tiny" else "50MB")
    return path
