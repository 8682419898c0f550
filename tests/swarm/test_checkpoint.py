"""Tensors come from the shards that hold them and from no other; what is missing or damaged is said in one sentence."""

import json
from pathlib import Path

import pytest
import torch
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.errors import CheckpointError
from nectar_swarm.modelfiles import INDEX, SINGLE
from nectar_swarm.source import open_source
from safetensors.torch import load_file, save_file


def weight_map(folder: Path) -> dict[str, str]:
    result: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return result


def block(folder: Path, number: int) -> list[str]:
    return [key for key in weight_map(folder) if f".layers.{number}." in key]


def test_only_the_shards_of_the_asked_tensors_are_opened(llama_shards: Path) -> None:
    checkpoint = Checkpoint(open_source(str(llama_shards)))
    assert checkpoint.opened == []
    keys = block(llama_shards, 2)
    checkpoint.lazy(keys)
    assert checkpoint.opened == sorted({weight_map(llama_shards)[key] for key in keys})
    assert len(checkpoint.opened) < len(set(weight_map(llama_shards).values())) / 2


def test_tensors_have_the_names_shapes_and_numbers_of_the_files(llama_shards: Path, llama_single: Path) -> None:
    one, several = (Checkpoint(open_source(str(folder))) for folder in (llama_single, llama_shards))
    assert one.weight_map.keys() == several.weight_map.keys()
    expected = load_file(llama_single / SINGLE)
    for checkpoint in (one, several):
        found = checkpoint.lazy(checkpoint.weight_map)
        assert {key: tuple(lazy.get_shape()) for key, lazy in found.items()} == {
            key: tuple(tensor.shape) for key, tensor in expected.items()
        }
        assert {lazy.get_dtype() for lazy in found.values()} == {"F32"}
        assert all(torch.equal(lazy[...], expected[key]) for key, lazy in found.items())


def test_nothing_is_read_before_it_is_indexed_and_then_it_is_counted(llama_single: Path) -> None:
    counted: list[int] = []
    lazy = Checkpoint(open_source(str(llama_single))).lazy(["model.norm.weight"], counted.append)["model.norm.weight"]
    assert (lazy.get_shape(), counted) == ([64], [])
    assert lazy[:16].shape == (16,)
    assert lazy[...].shape == (64,)
    assert counted == [64, 256]


def test_a_tensor_that_the_index_does_not_name_is_refused(llama_shards: Path, llama_single: Path) -> None:
    for folder in (llama_shards, llama_single):
        with pytest.raises(CheckpointError, match=r"has no tensor model\.layers\.9"):
            Checkpoint(open_source(str(folder))).lazy(["model.layers.9.weight"])


def test_a_tensor_that_its_shard_lacks_is_refused(shards: Path) -> None:
    key = "model.norm.weight"
    shard = shards / weight_map(shards)[key]
    save_file({name: tensor for name, tensor in load_file(shard).items() if name != key}, shard)
    with pytest.raises(CheckpointError, match=f"{shard.name} lacks the tensor {key}"):
        Checkpoint(open_source(str(shards))).lazy([key])


def test_a_shard_cut_before_its_digest_was_taken_is_refused_when_opened(shards: Path) -> None:
    key = "model.norm.weight"
    shard = shards / weight_map(shards)[key]
    shard.write_bytes(shard.read_bytes()[:-100])
    checkpoint = Checkpoint(open_source(str(shards)))
    checkpoint.lazy(["lm_head.weight"])
    with pytest.raises(CheckpointError, match=f"{shard.name} is not a safetensors file"):
        checkpoint.lazy([key])


@pytest.mark.parametrize("contents", [b"", b"\xff" * 100, b"PK\3\4" + bytes(100)])
def test_a_file_that_is_not_safetensors_is_refused(single: Path, contents: bytes) -> None:
    (single / SINGLE).write_bytes(contents)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        Checkpoint(open_source(str(single)))


def test_a_shard_changed_after_the_model_was_named_is_refused(shards: Path) -> None:
    checkpoint = Checkpoint(open_source(str(shards)))
    key = "model.norm.weight"
    shard = shards / weight_map(shards)[key]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged or was replaced"):
        checkpoint.lazy([key])


def test_a_shard_removed_after_the_model_was_named_is_refused(shards: Path) -> None:
    checkpoint = Checkpoint(open_source(str(shards)))
    key = "model.norm.weight"
    (shards / weight_map(shards)[key]).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        checkpoint.lazy([key])
