"""The same files are the same model wherever they come from, and from a hub only what is needed is fetched."""

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from nectar_swarm import source
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.errors import CheckpointError
from nectar_swarm.source import CONFIG, INDEX, SINGLE, HubRepository, LocalFolder, open_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/llama"


# Folders


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
    monkeypatch.setattr(source, "MAX_INDEX_BYTES", 100)
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


def test_a_folder_without_safetensors_is_refused(single: Path) -> None:
    (single / SINGLE).rename(single / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        open_source(str(single))


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "~/no/such/folder", "a/b/c", "~nobody-of-this-name"])
def test_a_path_to_nothing_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(CheckpointError, match="folder"):
        open_source(name)


# A hub


@dataclass
class Hub:
    """A server laid out like a hub with one repository, the files of a folder, and a log of what was asked of it."""

    folder: Path
    server: http.server.ThreadingHTTPServer
    asked: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    failing: bool = False

    def fetched(self) -> list[str]:
        """The weight files that were asked for."""
        return sorted({path.rpartition("/")[2] for path in self.asked if path.endswith(".safetensors")})

    def siblings(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.folder.iterdir()):
            data = path.read_bytes()
            entry: dict[str, Any] = {"rfilename": path.name, "size": len(data), "blobId": etag(path)}
            if path.suffix == ".safetensors":
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            found.append(entry)
        return [entry for entry in found if entry["rfilename"] not in self.missing]


def etag(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Page(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.hub.asked.append(self.path.partition("?")[0])
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if self.hub.failing:
            return self.reply(500, {}, b"", body)
        if path in (f"/api/models/{REPOSITORY}/revision/main", f"/api/models/{REPOSITORY}/revision/{COMMIT}"):
            info = {"id": REPOSITORY, "sha": COMMIT, "siblings": self.hub.siblings()}
            return self.reply(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body)
        prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
        if path.startswith(prefix) and (file := self.hub.folder / path.removeprefix(prefix)).is_file():
            headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{etag(file)}"'}
            return self.reply(200, headers, file.read_bytes(), body)
        code = "RevisionNotFound" if path.startswith(f"/api/models/{REPOSITORY}/") else "RepoNotFound"
        return self.reply(404, {"X-Error-Code": code}, b"", body)

    def reply(self, status: int, headers: dict[str, str], data: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    page = type("PageOfHub", (Page,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), page) as server:
        page.hub = hub = Hub(shards, server)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        constants = huggingface_hub.constants
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts
        yield hub
        server.shutdown()
        thread.join()


def stop(hub: Hub) -> None:
    hub.server.shutdown()
    hub.server.server_close()


def block_keys(checkpoint: Checkpoint, number: int) -> list[str]:
    return [key for key in checkpoint.weight_map if f".layers.{number}." in key]


def test_a_repository_is_the_same_model_as_a_folder_with_its_files(hub: Hub) -> None:
    remote = open_source(REPOSITORY)
    assert isinstance(remote, HubRepository)
    assert remote.manifest == LocalFolder(hub.folder).manifest
    assert remote.manifest == open_source(REPOSITORY, COMMIT).manifest


def test_no_weights_are_fetched_to_name_a_model(hub: Hub) -> None:
    remote = open_source(REPOSITORY)
    assert hub.fetched() == []
    assert {"config.json", "tokenizer.json"} <= {path.name for path in remote.folder.iterdir()}


def test_only_the_shards_of_a_part_are_fetched(hub: Hub) -> None:
    checkpoint = Checkpoint(open_source(REPOSITORY))
    keys = block_keys(checkpoint, 2)
    tensors = checkpoint.lazy(keys)
    assert hub.fetched() == sorted({checkpoint.weight_map[key] for key in keys}) == checkpoint.opened
    assert all(lazy[...].numel() for lazy in tensors.values())


def test_what_was_fetched_is_not_fetched_again(hub: Hub) -> None:
    for _ in range(2):
        checkpoint = Checkpoint(open_source(REPOSITORY))
        checkpoint.lazy(block_keys(checkpoint, 2))
    files = [path for path in hub.asked if "/resolve/" in path]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("way", ["down", "offline", "failing"])
def test_without_the_hub_what_was_fetched_still_opens(hub: Hub, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    checkpoint = Checkpoint(open_source(REPOSITORY))
    manifest = checkpoint.source.manifest
    checkpoint.lazy(block_keys(checkpoint, 2))
    if way == "down":
        stop(hub)
    elif way == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:
        hub.failing = True
    again = Checkpoint(open_source(REPOSITORY))
    assert again.source.manifest == manifest
    assert again.lazy(block_keys(again, 2))
    with pytest.raises(CheckpointError, match="cannot fetch"):
        again.lazy(block_keys(again, 4))


def test_a_hub_that_is_down_is_told_from_a_model_that_is_not_there(hub: Hub) -> None:
    stop(hub)
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        open_source(REPOSITORY)


@pytest.mark.parametrize("name", ["someone/other", "nobody", "someone/llama "])
def test_an_unknown_repository_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(CheckpointError, match="here or on the hub"):
        open_source(name)


@pytest.mark.parametrize("name", ["-bad-", "a b", "x" * 300, "a..b", "\0", "né"])
def test_an_absurd_name_is_refused(hub: Hub, name: str) -> None:
    with pytest.raises(CheckpointError, match="hub"):
        open_source(name)
    assert hub.asked == []


def test_an_unknown_revision_is_refused(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="revision v9"):
        open_source(REPOSITORY, "v9")


def test_a_repository_that_lacks_a_shard_is_refused_before_anything_large_is_fetched(hub: Hub) -> None:
    hub.missing.add(shard := first_shard(hub.folder).name)
    with pytest.raises(CheckpointError, match=f"lacks {shard}"):
        open_source(REPOSITORY)
    assert hub.fetched() == []


@pytest.mark.parametrize("name", [CONFIG, INDEX])
def test_a_repository_without_configuration_or_safetensors_is_refused(hub: Hub, name: str) -> None:
    hub.missing.add(name)
    with pytest.raises(CheckpointError, match="has no"):
        open_source(REPOSITORY)


def test_a_fetched_shard_that_was_damaged_since_is_refused(hub: Hub) -> None:
    remote = open_source(REPOSITORY)
    shard = first_shard(hub.folder).name
    path = remote.path(shard).resolve()
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged or was replaced"):
        remote.path(shard)


def test_a_cache_folder_that_cannot_be_written_does_not_keep_a_repository_closed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NECTAR_CACHE", str(hub.folder / CONFIG))
    assert open_source(REPOSITORY).manifest
