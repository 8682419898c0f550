"""Blocks that need more than they are handed are recognised by looking, and the refusal says what they need."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from nectar_swarm.anatomy import examine
from nectar_swarm.errors import UnsupportedModelError
from nectar_swarm.flow import watch
from torch import nn
from transformers import PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaModel

from tests.families.configs import REFUSED

Change = Callable[[Any, int], None]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_family_that_cannot_be_divided_is_refused_with_its_reason(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(UnsupportedModelError, match=reason):
        examine(make())


def llama(change: Change | None = None) -> Any:
    """A Llama of four blocks on the meta device, whose every block was changed."""
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2)
    with torch.device("meta"):
        model = LlamaModel(config).eval()
        for number in range(4) if change else ():
            change(model, number)
    return model


def around(model: Any, number: int, wrap: Callable[..., Any]) -> None:
    """Let `wrap(forward, hidden, …)` stand for a block's forward."""
    block = model.layers[number]
    forward = block.forward
    block.forward = lambda hidden_states, *args, **kwargs: wrap(forward, hidden_states, *args, **kwargs)


def add_the_embedding(model: Any, number: int) -> None:
    around(model, number, lambda forward, hidden, **kwargs: forward(hidden, **kwargs) + model.embed_tokens.weight[0])


def add_the_block_before(model: Any, number: int) -> None:
    weight = model.layers[number - 1].mlp.up_proj.weight[0, 0]
    around(model, number, lambda forward, hidden, **kwargs: forward(hidden, **kwargs) * weight)


def remember_the_first_hidden_states(model: Any, number: int) -> None:
    def wrap(forward: Any, hidden: torch.Tensor, **kwargs: Any) -> Any:
        model.__dict__.setdefault("first", hidden)
        return forward(hidden, **kwargs) + model.first

    around(model, number, wrap)


def halve(model: Any, number: int) -> None:
    around(model, number, lambda forward, hidden, **kwargs: forward(hidden, **kwargs)[..., :16])


def share_with_the_first(model: Any, number: int) -> None:
    model.layers[number].mlp = model.layers[0].mlp


def look_ahead(model: Any, number: int) -> None:
    model.layers[number].self_attn.is_causal = False


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_the_embedding, r"block 0 of embed_tokens\.weight too"),
        (add_the_block_before, r"block 0 of layers\.3\.mlp\.up_proj\.weight too"),
        (remember_the_first_hidden_states, "block 1 of what comes into block 0 too"),
        (halve, "different widths"),
        (share_with_the_first, r"shares layers\.0\.mlp\..* between its blocks 0 and 1"),
        (look_ahead, "it is an encoder"),
    ],
)
def test_what_a_blocks_output_is_made_of_is_seen(change: Change, reason: str) -> None:
    model = llama(change)
    with pytest.raises(UnsupportedModelError, match=reason):
        watch(model, model.layers)


def test_blocks_out_of_turn_are_seen() -> None:
    model = llama()
    with pytest.raises(UnsupportedModelError, match="out of turn"):
        watch(model, nn.ModuleList(reversed(model.layers)))


def test_a_change_between_two_blocks_is_seen() -> None:
    model = llama()
    model.layers.insert(2, nn.Identity())
    model.layers[2].forward = lambda hidden, **kwargs: 2 * hidden
    with pytest.raises(UnsupportedModelError, match="changes the hidden states between its blocks 1 and 2"):
        watch(model, nn.ModuleList([*model.layers[:2], *model.layers[3:]]))


def test_what_follows_the_blocks_may_only_use_the_last_ones_hidden_states() -> None:
    model, seen = llama(), []
    model.layers[1].register_forward_hook(lambda block, args, out: seen.append(out))
    model.norm.forward = lambda hidden: hidden + seen[0]
    with pytest.raises(UnsupportedModelError, match="after its last block"):
        watch(model, model.layers)


def test_an_honest_model_passes() -> None:
    model = llama()
    flow = watch(model, model.layers)
    assert (flow.width, flow.returns_tuple) == (32, False)


def nested(text: PretrainedConfig) -> PretrainedConfig:
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    return transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision | {"image_size": 28, "patch_size": 14}
    )


def test_the_text_model_of_one_that_sees_is_taken_with_its_own_tensors_names() -> None:
    text = transformers.Gemma3TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        head_dim=16,
        num_key_value_heads=1,
    )
    anatomy = examine(nested(text))
    assert (anatomy.config.model_type, anatomy.blocks) == ("gemma3_text", 4)
    for prefix in ("model.language_model.", "language_model.model."):
        assert anatomy.block_of(f"{prefix}layers.3.mlp.up_proj.weight") == 3
        assert anatomy.renumber(f"{prefix}layers.3.mlp.up_proj.weight", 2, 4) == "model.layers.1.mlp.up_proj.weight"
        assert anatomy.name_of(f"{prefix}norm.weight") == "model.norm.weight"
    for head in ("lm_head.weight", "language_model.lm_head.weight"):
        assert anatomy.name_of(head) == "lm_head.weight"
    seeing = "vision_tower.encoder.layers.1.mlp.fc1.weight"
    assert anatomy.name_of(seeing) is anatomy.block_of(seeing) is anatomy.renumber(seeing, 0, 4) is None
