"""Rotary embeddings whose frequencies depend on how long a text is: past some length Transformers takes others.

Keys that were turned by the old ones do not fit then, so a session keeps to one set, which its length decides.
"""

from typing import Any

from transformers import PretrainedConfig

LONG, GROWING = "longrope", "dynamic"  # one other set of frequencies, or others with each token


def rope_types(config: PretrainedConfig) -> set[str]:
    """Of all blocks: some families have one set of parameters, some one for each type of block."""
    return {part["rope_type"] for part in _parameters(config) if "rope_type" in part}


def short_length(config: PretrainedConfig) -> int | None:
    """How many positions a text may have before its frequencies change; None where they never do."""
    names = {LONG: "original_max_position_embeddings", GROWING: "max_position_embeddings"}
    text = config.get_text_config(decoder=True)
    limits = [
        part.get(name) or getattr(text, name)
        for part in _parameters(config)
        if (name := names.get(part.get("rope_type", "")))
    ]
    return min(limits, default=None)


def use_default_frequencies(config: PretrainedConfig) -> None:
    """In a configuration that is only looked at, in place of those that depend on a text's length."""
    for part in _parameters(config):
        if part.get("rope_type") in (LONG, GROWING):
            part["rope_type"] = "default"


def _parameters(config: PretrainedConfig) -> list[dict[str, Any]]:
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    return [parameters, *(part for part in parameters.values() if isinstance(part, dict))]
