"""A span computes, bit for bit, what the whole model's blocks compute, and reads no more than its blocks."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nectar_node.errors import SpanError
from nectar_node.span import SpanModel, _slice_config
from nectar_swarm.anatomy import Anatomy, examine, find_stack, load_config
from nectar_swarm.cachename import CACHE
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.folder import LocalFolder
from nectar_swarm.modelfiles import INDEX
from transformers import DynamicCache

FAMILIES = ["llama", "mistral", "qwen3", "mixtral", "gemma2", "gpt2", "opt", "bloom", "gpt_oss"]
BATCH, PREFILL, TOKENS = 2, 12, 16  # longer than the sliding windows of 8
CPU = torch.device("cpu")
every_family = pytest.mark.parametrize("family", FAMILIES)
Recorded = list[dict[int, tuple[torch.Tensor, torch.Tensor]]]


def blocks_of(model: Any) -> torch.nn.ModuleList:
    owner, stack = find_stack(model.base_model)
    return getattr(owner, stack)


def token_ids() -> torch.Tensor:
    return torch.randint(2, 128, (BATCH, TOKENS), generator=torch.Generator().manual_seed(7))


def record(model: Any, mask: torch.Tensor | None = None) -> Recorded:
    """Input and output of every block of the whole model: in the prefill, then in each decode step with its cache."""
    steps: Recorded = []

    def hook(number: int) -> Callable[..., None]:
        def keep(module: Any, args: Any, kwargs: Any, out: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            steps[-1][number] = (given, out[0] if isinstance(out, tuple) else out)

        return keep

    handles = [
        block.register_forward_hook(hook(number), with_kwargs=True) for number, block in enumerate(blocks_of(model))
    ]
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        for start, stop in steps_of():
            steps.append({})
            seen = {} if mask is None else {"attention_mask": mask[:, :stop]}
            if mask is not None and model.config.model_type != "bloom":
                seen["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, start:stop]
            model(token_ids()[:, start:stop], use_cache=True, **{CACHE: cache}, **seen)
    for handle in handles:
        handle.remove()
    return steps


def steps_of() -> list[tuple[int, int]]:
    """Where the prefill and each decode step begin and end."""
    return list(pairwise((0, *range(PREFILL, TOKENS + 1))))


def positions(start: int, stop: int) -> torch.Tensor:
    return torch.arange(start, stop).expand(BATCH, -1)


def load(folder: Path, start: int, stop: int) -> SpanModel:
    source = LocalFolder(folder)
    return SpanModel(Checkpoint(source), examine(load_config(source)), start, stop, torch.float32, CPU)


def cut_from_index(folder: Path, key: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"][key]
    (folder / INDEX).write_text(json.dumps(index))


@every_family
def test_a_span_is_bitwise_the_whole_models_blocks(
    family: str, whole_model: Callable[[str], Any], load_span: Callable[[str, int, int], SpanModel]
) -> None:
    span = load_span(family, 1, 5)
    cache = span.new_cache(1, 5)
    for (start, stop), blocks in zip(steps_of(), record(whole_model(family)), strict=True):
        out = span.forward(blocks[1][0], cache, start=1, stop=5, position_ids=positions(start, stop))
        assert torch.equal(out, blocks[4][1])


@every_family
def test_a_part_of_a_span_with_a_cache_of_its_own_is_bitwise_those_blocks(
    family: str, whole_model: Callable[[str], Any], load_span: Callable[[str, int, int], SpanModel]
) -> None:
    span = load_span(family, 1, 5)
    first, second = span.new_cache(1, 3), span.new_cache(3, 5)
    for (start, stop), blocks in zip(steps_of(), record(whole_model(family)), strict=True):
        where = positions(start, stop)
        assert torch.equal(span.forward(blocks[1][0], first, start=1, stop=3, position_ids=where), blocks[2][1])
        assert torch.equal(span.forward(blocks[3][0], second, start=3, stop=5, position_ids=where), blocks[4][1])


@every_family
def test_left_padded_rows_are_bitwise_the_whole_models_where_they_are_not_padding(
    family: str, whole_model: Callable[[str], Any], load_span: Callable[[str, int, int], SpanModel]
) -> None:
    pads = torch.tensor([3, 0])[:, None]
    columns = torch.arange(TOKENS).expand(BATCH, -1)
    mask = (columns >= pads).long()
    span = load_span(family, 1, 5)
    cache = span.new_cache(1, 5)
    for (start, stop), blocks in zip(steps_of(), record(whole_model(family), mask), strict=True):
        out = span.forward(
            blocks[1][0],
            cache,
            start=1,
            stop=5,
            position_ids=(columns - pads).clamp(min=0)[:, start:stop],
            attention_mask=mask[:, :stop],
        )
        kept = mask[:, start:stop].bool()
        assert torch.equal(out[kept], blocks[4][1][kept])


@every_family
def test_a_rolled_back_span_goes_on_as_if_nothing_had_been(
    family: str, whole_model: Callable[[str], Any], load_span: Callable[[str, int, int], SpanModel]
) -> None:
    span = load_span(family, 1, 5)
    cache = span.new_cache(1, 5)
    prefill, *decode = record(whole_model(family))
    span.forward(prefill[1][0], cache, start=1, stop=5, position_ids=positions(0, PREFILL))
    stray = torch.randn(BATCH, 3, span.width, generator=torch.Generator().manual_seed(1))
    cache.crop(0)
    span.forward(stray, cache, start=1, stop=5, position_ids=positions(PREFILL, PREFILL + 3))
    cache.crop(-3)
    for position, blocks in enumerate(decode, PREFILL):
        out = span.forward(blocks[1][0], cache, start=1, stop=5, position_ids=positions(position, position + 1))
        cache.crop(0)
        torch.testing.assert_close(out, blocks[4][1], rtol=0, atol=1e-3)


@every_family
def test_two_spans_after_each_other_are_bitwise_one(
    family: str, load_span: Callable[[str, int, int], SpanModel]
) -> None:
    one, head, tail = load_span(family, 1, 5), load_span(family, 1, 2), load_span(family, 2, 5)
    hidden = torch.randn(BATCH, 9, one.width, generator=torch.Generator().manual_seed(2))
    where = positions(0, 9)
    middle = head.forward(hidden, None, start=1, stop=2, position_ids=where)
    split = tail.forward(middle, None, start=2, stop=5, position_ids=where)
    assert torch.equal(split, one.forward(hidden, None, start=1, stop=5, position_ids=where))


@every_family
def test_only_the_shards_of_its_blocks_are_opened_and_only_its_weights_held(
    family: str, checkpoint_folder: Callable[[str], Path], anatomy_of: Callable[[str], Anatomy]
) -> None:
    checkpoint, anatomy = Checkpoint(LocalFolder(checkpoint_folder(family))), anatomy_of(family)
    span = SpanModel(checkpoint, anatomy, 2, 4, torch.float32, CPU)
    needed = {shard for key, shard in checkpoint.weight_map.items() if anatomy.block_of(key) in (2, 3)}
    assert set(checkpoint.opened) == needed < set(checkpoint.weight_map.values())
    assert sum(weight.numel() for weight in span.model.parameters()) == sum(anatomy.block_parameters[2:4])
    assert span.blocks == 2
    assert span.weight_bytes >= 4 * sum(anatomy.block_parameters[2:4])


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("llama", "model.layers.3.mlp.up_proj.weight"),
        ("gpt2", "transformer.h.3.attn.c_attn.weight"),
        ("opt", "model.decoder.layers.4.fc1.bias"),
        ("bloom", "transformer.h.2.mlp.dense_h_to_4h.weight"),
    ],
)
def test_a_lacking_tensor_is_named_as_the_checkpoint_names_it(
    family: str, key: str, damaged_folder: Callable[[str], Path]
) -> None:
    folder = damaged_folder(family)
    cut_from_index(folder, key)
    with pytest.raises(SpanError, match=f"lacks 1 tensors .*{key}"):
        load(folder, 2, 5)
    load(folder, 0, 2)  # blocks that have all of theirs


def test_a_lacking_expert_is_an_error_that_says_which_blocks(damaged_folder: Callable[[str], Path]) -> None:
    folder = damaged_folder("mixtral")
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    experts = [key for key in index if ".layers.3." in key and "experts" in key]
    cut_from_index(folder, experts[0])
    with pytest.raises(SpanError, match=r"blocks \[2, 5\) of .* do not fit together"):
        load(folder, 2, 5)
    for key in experts[1:]:
        cut_from_index(folder, key)
    with pytest.raises(SpanError, match=r"layers\.3\..*experts"):
        load(folder, 2, 5)


def test_blocks_that_a_checkpoint_has_nothing_of_are_an_error(damaged_folder: Callable[[str], Path]) -> None:
    folder = damaged_folder("llama")
    for number in (4, 5):
        for key in json.loads((folder / INDEX).read_text())["weight_map"]:
            if f"layers.{number}." in key:
                cut_from_index(folder, key)
    with pytest.raises(SpanError, match=r"no tensors of blocks \[4, 6\)"):
        load(folder, 4, 6)


def test_weights_of_another_shape_than_the_configuration_says_are_an_error(
    damaged_folder: Callable[[str], Path],
) -> None:
    folder = damaged_folder("llama")
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 80
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpanError, match="does not fit its own configuration"):
        load(folder, 0, 2)


def test_blocks_whose_kind_follows_from_their_number_keep_it() -> None:
    config = transformers.JambaConfig(num_hidden_layers=6, attn_layer_period=3, attn_layer_offset=1)
    kinds = config.layers_block_type
    assert kinds[2:5] == ["mamba", "mamba", "attention"]
    _slice_config(config, 6, 2, 5)
    assert config.layers_block_type == kinds[2:5]
    assert config.num_hidden_layers == 3


def test_a_block_refuses_to_run_outside_its_span(load_span: Callable[[str, int, int], SpanModel]) -> None:
    span = load_span("llama", 1, 5)
    with pytest.raises(SpanError, match="outside its span"):
        span.model(inputs_embeds=torch.zeros(1, 1, span.width))
