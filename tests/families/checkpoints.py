"""Small random checkpoints of families, in the format that hubs hold."""

from pathlib import Path

import torch
import transformers

from tests.families.configs import CONFIGS, MORE


def write(family: str, folder: Path) -> Path:
    """A family's checkpoint in many small shards, with weights that let errors show."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config((CONFIGS | MORE)[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # or a wrong norm or bias would not show
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder
