"""From a hub only what is needed is fetched, once, and what was fetched still opens without the hub."""

import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from nectar_swarm.anatomy import examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.errors import CheckpointError, DiskError
from nectar_swarm.folder import LocalFolder
from nectar_swarm.hub import HubRepository
from nectar_swarm.modelfiles import CONFIG, GENERATION_CONFIG, INDEX, SINGLE
from nectar_swarm.source import Source, open_source

from tests.hubserver import COMMIT, INFO, REPOSITORY, Fault, HubServer, access


def opened(hub: HubServer, revision: str = "main", **options: Any) -> Source:
    return open_source(REPOSITORY, revision, access(hub, **options))


def first_shard(hub: HubServer) -> str:
    return next(path.name for path in sorted(hub.folder.iterdir()) if path.suffix == ".safetensors")


def block_keys(checkpoint: Checkpoint, start: int, stop: int) -> list[str]:
    return [key for key in checkpoint.weight_map for block in range(start, stop) if f".layers.{block}." in key]


def test_a_repository_is_the_same_model_as_a_folder_with_its_files(hub: HubServer) -> None:
    remote = opened(hub)
    assert isinstance(remote, HubRepository)
    assert remote.manifest == LocalFolder(hub.folder).manifest == opened(hub, COMMIT).manifest


def test_no_weights_are_fetched_to_name_a_model(hub: HubServer) -> None:
    remote = opened(hub)
    assert hub.fetched() == []
    assert {CONFIG, GENERATION_CONFIG, "tokenizer.json"} <= {path.name for path in remote.folder.iterdir()}


def test_a_span_fetches_its_shards_once_and_no_byte_more(hub: HubServer) -> None:
    checkpoint = Checkpoint(opened(hub))
    keys = block_keys(checkpoint, 1, 3)
    tensors = checkpoint.lazy(keys)
    shards = sorted({checkpoint.weight_map[key] for key in keys})
    assert hub.fetched() == shards == checkpoint.opened
    assert {hub.requests[name] for name in shards} == {1}
    assert {name: hub.sent_bytes[name] for name in shards} == {
        name: (hub.folder / name).stat().st_size for name in shards
    }
    assert all(lazy[...].numel() for lazy in tensors.values())


def test_a_client_fetches_what_is_outside_the_blocks(hub: HubServer) -> None:
    checkpoint = Checkpoint(source := opened(hub))
    anatomy = examine(load_config(source))
    checkpoint.lazy(key for key in checkpoint.weight_map if anatomy.block_of(key) is None)
    blocks = {checkpoint.weight_map[key] for key in block_keys(checkpoint, 1, 4)}
    assert hub.fetched() == checkpoint.opened
    assert not blocks & set(hub.fetched())


def test_what_was_fetched_is_not_fetched_again(hub: HubServer) -> None:
    for _ in range(2):
        checkpoint = Checkpoint(opened(hub))
        checkpoint.lazy(block_keys(checkpoint, 2, 3))
    assert {count for name, count in hub.requests.items() if name != INFO} == {1}


def test_what_the_hubs_own_client_has_fetched_is_used_and_left_alone(hub: HubServer) -> None:
    name = first_shard(hub)
    theirs = Path(huggingface_hub.hf_hub_download(REPOSITORY, name, revision=COMMIT, endpoint=hub.url))
    before = hub.requests[name]
    assert opened(hub).path(name) == theirs
    assert hub.requests[name] == before
    data = theirs.read_bytes()
    theirs.resolve().write_bytes(data[:-1])
    assert opened(hub).path(name).read_bytes() == data
    assert theirs.read_bytes() == data[:-1]


def test_blocks_that_were_let_go_make_way_for_others_below_the_limit(hub: HubServer, nectar_cache: Path) -> None:
    free = Checkpoint(opened(hub))
    limit = sum((hub.folder / name).stat().st_size for name in {free.weight_map[key] for key in block_keys(free, 1, 2)})
    checkpoint = Checkpoint(opened(hub, max_disk_bytes=limit))
    checkpoint.lazy(block_keys(checkpoint, 1, 2))
    with pytest.raises(DiskError, match="serve fewer blocks"):
        checkpoint.lazy(block_keys(checkpoint, 3, 4))
    checkpoint.release()  # as a node does when it moves
    assert all(lazy[...].numel() for lazy in checkpoint.lazy(block_keys(checkpoint, 3, 4)).values())
    assert sum(path.stat().st_size for path in (nectar_cache / "hub" / "files").iterdir()) <= limit


# Without the hub


@pytest.mark.parametrize("way", ["down", "failing"])
def test_without_the_hub_what_was_fetched_still_opens(hub: HubServer, way: str) -> None:
    checkpoint = Checkpoint(opened(hub))
    manifest = checkpoint.source.manifest
    checkpoint.lazy(block_keys(checkpoint, 2, 3))
    if way == "down":
        hub.stop()
    else:
        hub.faults |= {name.name: Fault(99, 500) for name in hub.folder.iterdir()} | {INFO: Fault(99, 500)}
    again = Checkpoint(opened(hub))
    assert again.source.manifest == manifest
    assert again.lazy(block_keys(again, 2, 3))
    with pytest.raises(CheckpointError, match="cannot fetch"):
        again.lazy(block_keys(again, 4, 5))


@pytest.mark.parametrize("way", ["option", "variable"])
def test_offline_nothing_is_asked_and_what_is_missing_is_named(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    checkpoint = Checkpoint(opened(hub))
    checkpoint.lazy(block_keys(checkpoint, 2, 3))
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", way == "variable")
    again = Checkpoint(opened(hub, offline=way == "option"))
    assert again.lazy(block_keys(again, 2, 3))
    shards = (again.weight_map[key] for key in block_keys(again, 4, 5))
    missing = next(shard for shard in shards if shard not in again.opened)
    with pytest.raises(CheckpointError, match=rf"{missing} of {REPOSITORY} is not in the cache.*without --offline"):
        again.lazy(block_keys(again, 4, 5))
    with pytest.raises(CheckpointError, match="offline mode"):
        opened(hub, "v9", offline=True)
    assert hub.requests.total() == 0


def test_a_hub_that_is_down_is_told_from_a_model_that_is_not_there(hub: HubServer) -> None:
    hub.stop()
    with pytest.raises(CheckpointError, match=r"no folder .* hub cannot be reached: check the network"):
        opened(hub)


# What clumsy users meet


@pytest.mark.parametrize("name", ["someone/other", "nobody"])
def test_an_unknown_repository_is_refused_with_a_hint(hub: HubServer, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"here or on the hub; check the spelling.*hf auth login"):
        open_source(name, hub=access(hub))


@pytest.mark.parametrize("name", ["-bad-", "a b", "x" * 300, "a..b", "\0", "né", "someone/llama "])
def test_an_absurd_name_is_refused(hub: HubServer, name: str) -> None:
    with pytest.raises(CheckpointError, match="hub"):
        open_source(name, hub=access(hub))
    assert hub.requests.total() == 0


def test_an_unknown_revision_is_refused(hub: HubServer) -> None:
    with pytest.raises(CheckpointError, match="no revision v9"):
        opened(hub, "v9")


@pytest.mark.parametrize(
    ("code", "hint"), [("GatedRepo", "is gated: ask for access.*HF_TOKEN"), ("", "refuses it.*403.*HF_TOKEN")]
)
def test_a_closed_repository_is_refused_with_a_hint(hub: HubServer, code: str, hint: str) -> None:
    hub.faults[INFO] = Fault(status=403, headers={"X-Error-Code": code})
    with pytest.raises(CheckpointError, match=hint):
        opened(hub)
    assert hub.requests[INFO] == 1


def test_a_busy_hub_is_asked_again(hub: HubServer) -> None:
    hub.faults[INFO] = Fault(2, 429, {"Retry-After": "0"})
    assert opened(hub).manifest
    assert hub.requests[INFO] == 3


def test_a_hub_that_wants_us_to_wait_too_long_is_not_waited_for(hub: HubServer) -> None:
    hub.faults[INFO] = Fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(CheckpointError, match="try again in 3600 s"):
        opened(hub)
    assert hub.requests[INFO] == 1


def test_a_server_that_is_no_hub_is_told(hub: HubServer) -> None:
    hub.commit = "../../../etc"
    with pytest.raises(CheckpointError, match="does not answer as a hub does"):
        opened(hub)


def test_a_repository_that_lacks_a_shard_is_refused_before_anything_large_is_fetched(hub: HubServer) -> None:
    hub.missing.add(shard := first_shard(hub))
    with pytest.raises(CheckpointError, match=f"lacks {shard}"):
        opened(hub)
    assert hub.fetched() == []


@pytest.mark.parametrize("name", [CONFIG, INDEX])
def test_a_repository_without_configuration_or_safetensors_is_refused(hub: HubServer, name: str) -> None:
    hub.missing.add(name)
    with pytest.raises(CheckpointError, match="has no"):
        opened(hub)


def test_a_repository_of_pickles_is_refused_and_beside_safetensors_they_are_ignored(hub: HubServer) -> None:
    (hub.folder / "pytorch_model.bin").write_bytes(b"anything")
    assert opened(hub).manifest.file("pytorch_model.bin") is None
    hub.missing |= {INDEX, SINGLE}
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin is a pickle.*{REPOSITORY}.*save_pretrained"):
        opened(hub)
    assert hub.requests["pytorch_model.bin"] == 0


def test_an_index_that_is_too_large_is_not_fetched(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nectar_swarm.hub.MAX_SMALL_BYTES", 1000)
    with pytest.raises(CheckpointError, match=f"{INDEX} of {REPOSITORY} is larger"):
        opened(hub)
    assert hub.requests[INDEX] == 0


def test_a_damaged_small_file_is_fetched_again(hub: HubServer) -> None:
    folder = opened(hub).folder
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(json.dumps({"model_type": "other"}))
    assert (opened(hub).folder / CONFIG).read_text() == config


def test_a_cache_folder_that_cannot_be_written_is_named(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NECTAR_CACHE", str(hub.folder / CONFIG))
    with pytest.raises(DiskError, match=r"cannot write in .*NECTAR_CACHE"):
        opened(hub)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_filled_cache_folder_that_cannot_be_written_serves(hub: HubServer, nectar_cache: Path) -> None:
    expected = opened(hub).path(first_shard(hub))
    folders = [path for path in [nectar_cache, *nectar_cache.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert opened(hub).path(first_shard(hub)) == expected
    finally:
        for folder in folders:
            folder.chmod(0o700)
