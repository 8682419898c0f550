"""Where the blocks are is found by looking, for families that name, nest and call them differently."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nectar_swarm.anatomy import Anatomy, examine, load_config
from nectar_swarm.errors import CheckpointError, UnsupportedModelError
from nectar_swarm.source import open_source
from transformers import PretrainedConfig

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
LLAMA = SMALL | {"intermediate_size": 48, "num_key_value_heads": 1}

# family: (configuration, stack, width)
FAMILIES: dict[str, tuple[dict[str, Any], str, int]] = {
    "Llama": (LLAMA, "layers", 32),
    "GPT2": ({"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64}, "h", 32),
    "OPT": (SMALL | {"ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 16}, "layers", 32),
    "Mixtral": (LLAMA | {"num_local_experts": 2, "num_experts_per_tok": 1}, "layers", 32),
    "Bloom": ({"vocab_size": 64, "hidden_size": 32, "n_layer": 3, "n_head": 2}, "h", 32),
    "Gemma2": (LLAMA | {"head_dim": 16}, "layers", 32),
    "Falcon": (SMALL | {"num_kv_heads": 1}, "h", 32),
}
PREFIXES = {"layers": "model.layers", "h": "transformer.h"}

NO_DECODERS: dict[str, dict[str, Any]] = {
    "ViT": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
    "T5": {"vocab_size": 64, "d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2},
    "CLIP": {},
    "Wav2Vec2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
}


def config_of(family: str, arguments: dict[str, Any]) -> PretrainedConfig:
    config: PretrainedConfig = getattr(transformers, f"{family}Config")(**arguments)
    return config


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Anatomy, str, int]:
    arguments, stack, width = FAMILIES[request.param]
    return examine(config_of(request.param, arguments)), stack, width


def test_the_stack_and_its_width_are_found(family: tuple[Anatomy, str, int]) -> None:
    anatomy, stack, width = family
    assert (anatomy.stack, anatomy.width, anatomy.blocks) == (stack, width, 3)


def test_every_block_counts_its_weights(family: tuple[Anatomy, str, int]) -> None:
    anatomy, _, _ = family
    assert len(set(anatomy.block_parameters)) == 1
    assert anatomy.block_parameters[0] > 1000


@pytest.mark.parametrize("name", FAMILIES)
def test_whether_a_block_returns_a_tuple_is_what_it_does_when_run(name: str) -> None:
    arguments, stack, _ = FAMILIES[name]
    config = config_of(name, arguments)
    outputs: list[object] = []
    base = transformers.AutoModel.from_config(config).eval()
    block = next(module for path, module in base.named_modules() if path.endswith(f"{stack}.0"))
    block.register_forward_hook(lambda module, args, out: outputs.append(out))
    base(input_ids=torch.tensor([[1, 2]]))
    assert examine(config).returns_tuple is isinstance(outputs[0], tuple)


def test_a_tensors_block_is_told_from_its_name(family: tuple[Anatomy, str, int]) -> None:
    anatomy, stack, _ = family
    prefix = PREFIXES[stack]
    assert anatomy.block_of(f"{prefix}.12.mlp.weight") == 12
    assert anatomy.block_of(f"{stack}.0.mlp.weight") == 0
    for outside in ("lm_head.weight", f"{prefix}.norm.weight", f"x{stack}.1.weight", f"{prefix}.1"):
        assert anatomy.block_of(outside) is None


def test_a_spans_tensors_are_counted_from_its_start(family: tuple[Anatomy, str, int]) -> None:
    anatomy, stack, _ = family
    prefix = PREFIXES[stack]
    assert anatomy.renumber(f"{prefix}.9.mlp.layers.3.weight", 8, 12) == f"{prefix}.1.mlp.layers.3.weight"
    assert anatomy.renumber(f"{prefix}.10.weight", 10, 11) == f"{prefix}.0.weight"
    for outside in (f"{prefix}.7.weight", f"{prefix}.12.weight", "lm_head.weight"):
        assert anatomy.renumber(outside, 8, 12) is None


def test_every_tensor_of_the_files_is_in_one_block_or_in_none(llama_single: Path) -> None:
    config = load_config(open_source(str(llama_single)))
    names = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    anatomy = examine(config)
    found = [anatomy.block_of(name) for name in names]
    assert {number for number in found if number is not None} == set(range(anatomy.blocks))
    assert found.count(None) == 3  # embedding, last norm, head


@pytest.mark.parametrize("name", NO_DECODERS)
def test_what_is_no_decoder_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError):
        examine(config_of(name, NO_DECODERS[name]))


def test_a_configuration_without_a_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="not a kind of language model"):
        examine(PretrainedConfig())


def test_a_configuration_is_read_as_transformers_reads_it(llama_single: Path) -> None:
    assert load_config(open_source(str(llama_single))).hidden_size == 64


@pytest.mark.parametrize("text", ['{"model_type": "no-such-kind"}', "{}"])
def test_an_unknown_kind_of_model_is_refused(single: Path, text: str) -> None:
    (single / "config.json").write_text(text)
    with pytest.raises(UnsupportedModelError):
        load_config(open_source(str(single)))


def test_code_that_a_model_brings_is_not_run_and_nobody_is_asked(single: Path) -> None:
    (single / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}')
    (single / "own.py").write_text("raise SystemExit")
    with pytest.raises(UnsupportedModelError, match="brings code of its own"):
        load_config(open_source(str(single)))


@pytest.mark.parametrize("data", [b"", b"not JSON", b"\xff\xff", b"[]", b'"text"', b'{"model_type": 5}'])
def test_a_damaged_configuration_is_refused(single: Path, data: bytes) -> None:
    (single / "config.json").write_bytes(data)
    with pytest.raises((CheckpointError, UnsupportedModelError)):
        load_config(open_source(str(single)))
