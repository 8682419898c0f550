"""The same files are the same model wherever they lie; what is not a model in safetensors is refused."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from nectar_swarm import modelfiles
from nectar_swarm.errors import CheckpointError
from nectar_swarm.modelfiles import CONFIG, INDEX, SINGLE
from nectar_swarm.source import open_source


def first_shard(folder: Path) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors")


@pytest.mark.parametrize("kind", ["llama_shards", "llama_single"])
def test_copies_in_other_folders_are_the_same_model(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert open_source(str(copy)).manifest == open_source(str(folder)).manifest


def test_files_that_are_no_part_of_a_model_do_not_change_it(shards: Path) -> None:
    before = open_source(str(shards)).manifest
    (shards / "README.md").write_text("something else")
    (shards / "pytorch_model.bin").write_bytes(b"something else")
    (shards / "chat_template.d").mkdir()
    assert open_source(str(shards)).manifest == before


@pytest.mark.parametrize("name", [CONFIG, "tokenizer.json", INDEX, "model-00003-of-00015.safetensors"])
def test_one_byte_makes_another_model(shards: Path, name: str) -> None:
    before = open_source(str(shards)).manifest.model_id
    data = (shards / name).read_bytes()
    (shards / name).write_bytes(data + b" " if name != INDEX else data.replace(b"metadata", b"Metadata"))
    assert open_source(str(shards)).manifest.model_id != before


@pytest.mark.parametrize("name", ["chat_template.jinja", "vocab.txt", "spiece.model"])
def test_a_tokenizer_file_is_part_of_the_model(shards: Path, name: str) -> None:
    before = open_source(str(shards)).manifest.model_id
    (shards / name).write_text("words")
    assert open_source(str(shards)).manifest.model_id != before


def test_shards_and_a_single_file_are_different_models(llama_shards: Path, llama_single: Path) -> None:
    ids = {open_source(str(folder)).manifest.model_id for folder in (llama_shards, llama_single)}
    assert len(ids) == 2


def test_a_manifest_lists_what_the_model_is_made_of(llama_single: Path) -> None:
    manifest = open_source(str(llama_single)).manifest
    assert [entry.name for entry in manifest.files] == [CONFIG, SINGLE, "tokenizer.json"]
    entry = manifest.file(SINGLE)
    data = (llama_single / SINGLE).read_bytes()
    assert entry is not None
    assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).digest())


def test_a_path_is_given_only_for_files_of_the_model(llama_single: Path) -> None:
    local = open_source(str(llama_single))
    assert local.path(SINGLE) == llama_single / SINGLE
    for name in ("README.md", "../secret", "/etc/hostname", ""):
        with pytest.raises(CheckpointError, match="not a file of this model"):
            local.path(name)


def test_a_missing_shard_is_named(shards: Path) -> None:
    shard = first_shard(shards)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shard.name}"):
        _ = open_source(str(shards)).manifest


def test_a_shard_cut_or_changed_later_is_refused(shards: Path) -> None:
    local = open_source(str(shards))
    shard = first_shard(shards)
    assert local.manifest.file(shard.name)
    data = shard.read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        shard.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged or was replaced"):
            local.path(shard.name)


@pytest.mark.parametrize(
    "index",
    [
        b"", b"not JSON", b"\xff\xfe", b"[]", b"{}", b"1", b"null", b'{"weight_map": null}', b'{"weight_map": [1]}',
        b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}', b'{"weight_map": {"a": null, "b": "x.safetensors"}}',
        b'{"weight_map": {"a": ["x.safetensors"]}}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_index_is_refused(shards: Path, index: bytes) -> None:
    (shards / INDEX).write_bytes(index)
    with pytest.raises(CheckpointError, match="not an index of weight files"):
        open_source(str(shards))


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/outside.safetensors", "a//b.safetensors", "", ".", "a\\b.safetensors", CONFIG,
     "tokenizer.json", "weights.bin", "a\0.safetensors", "\ud800.safetensors", "x" * 600 + ".safetensors"],
)  # fmt: skip
def test_an_index_that_names_no_weight_file_of_its_folder_is_refused(shards: Path, name: str) -> None:
    (shards.parent / "outside.safetensors").write_bytes(first_shard(shards).read_bytes())
    (shards / INDEX).write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(CheckpointError, match="not an index of weight files"):
        open_source(str(shards))


def test_an_index_over_the_limit_is_not_read(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfiles, "MAX_INDEX_BYTES", 100)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        open_source(str(shards))


def test_a_tokenizer_file_of_an_absurd_name_is_refused(shards: Path) -> None:
    (shards / "chat_template.\n").write_text("")
    with pytest.raises(CheckpointError, match="not a model that Nectar can name"):
        _ = open_source(str(shards)).manifest


def test_a_folder_without_a_configuration_is_no_model(single: Path) -> None:
    (single / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json; it is not a model's folder"):
        open_source(str(single))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "model.ckpt", "consolidated.00.pth"]
)
def test_pickled_weights_are_refused_with_the_reason_and_a_way_out(single: Path, name: str) -> None:
    (single / SINGLE).rename(single / name)
    with pytest.raises(CheckpointError, match=r"run any code.*save_pretrained") as refusal:
        open_source(str(single))
    assert name in str(refusal.value)


def test_gguf_is_refused_with_a_way_out(single: Path) -> None:
    (single / SINGLE).rename(single / "model-q4.gguf")
    with pytest.raises(CheckpointError, match=r"does not read.*gguf_file='model-q4.gguf'"):
        open_source(str(single))


def test_a_folder_without_weights_is_refused(single: Path) -> None:
    (single / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        open_source(str(single))


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "~/no/such/folder", "a/b/c", "~nobody-of-this-name"])
def test_a_path_to_nothing_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(CheckpointError, match="folder"):
        open_source(name)
