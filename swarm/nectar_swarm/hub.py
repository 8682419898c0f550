"""A repository of a hub. Its manifest comes from the hub's metadata, so that no weights are fetched to name it.

Small files lie in a folder for each commit, for Transformers to read; weights in the store, fetched when asked for. The
hub client's own cache, which other programs share, is looked into and left as it is.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from nectar_protocol.manifest import FileEntry, Manifest

from nectar_swarm.cache import cache_folder, write_whole
from nectar_swarm.digests import file_sha256
from nectar_swarm.download import RemoteFile, cannot_write, fetch
from nectar_swarm.errors import CheckpointError
from nectar_swarm.modelfiles import (
    CONFIG,
    GENERATION_CONFIG,
    INDEX,
    checked,
    entry_of,
    is_intact,
    manifest_of,
    need_safetensors,
    tokenizer_files,
    weight_files,
)
from nectar_swarm.retries import Retries, explain, is_passing
from nectar_swarm.store import Held, Store

ANSWER_S = 10.0
WEIGHTS = ".safetensors"
MAX_SMALL_BYTES = 64 << 20
COMMIT = re.compile("[0-9a-f]{40}")
DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubAccess:
    """How a hub is used. `endpoint` is its address, by default HF_ENDPOINT or the public hub; `max_disk_bytes` bounds
    the weights that lie in Nectar's cache."""

    endpoint: str | None = None
    offline: bool = False
    max_disk_bytes: int | None = None
    retries: Retries = field(default_factory=Retries)


class HubRepository:
    """A Source. Raises CheckpointError for what is not there, or not as the hub describes it."""

    def __init__(self, name: str, revision: str, hub: HubAccess) -> None:
        self.name, self._hub, self._revision = name, hub, revision
        self._endpoint = hub.endpoint or constants.ENDPOINT
        self._offline = hub.offline or constants.HF_HUB_OFFLINE
        self._held: dict[str, Held] = {}
        self._store = Store(cache_folder() / "hub", hub.max_disk_bytes)
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise CheckpointError(f"{name[:128]!r} is neither a folder nor a model's name on the hub") from error
        known = self._recall() if self._offline else self._ask()
        if known is None:
            raise CheckpointError(
                f"there is no folder {name!r}, no model of that name was used before, and the hub is not asked in "
                "offline mode; run once without --offline and HF_HUB_OFFLINE"
            )
        self._commit, self._manifest = known
        for entry in self._manifest.files:
            if not entry.name.endswith(WEIGHTS):
                self.path(entry.name)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def folder(self) -> Path:
        return cache_folder() / "hub" / "models" / self.name.replace("/", "--") / self._commit

    def expect(self, names: Iterable[str]) -> None:
        if not self._offline:
            entries = [entry_of(name, self._manifest) for name in names]
            self._store.check_room(entry for entry in entries if self._beside(entry) is None)

    def path(self, name: str) -> Path:
        entry = entry_of(name, self._manifest)
        if (beside := self._beside(entry)) is not None:
            return beside
        if name not in self._held:
            self._held[name] = self._hold(entry)
        return self._held[name].path

    def release(self) -> None:
        for held in self._held.values():
            held.release()
        self._held.clear()

    def _hold(self, entry: FileEntry) -> Held:
        if not self._offline:
            file = self._remote(entry.name, entry.size, entry.sha256.hex())
            return self._store.get(entry, lambda path, part: fetch(file, path, part, self._hub.retries))
        if (held := self._store.find(entry)) is None:
            raise CheckpointError(
                f"{entry.name} of {self.name} is not in the cache, and nothing is fetched in offline mode; run once "
                "without --offline and HF_HUB_OFFLINE"
            )
        return held

    def _remote(self, name: str, size: int, digest: str) -> RemoteFile:
        url = hf_hub_url(self.name, name, revision=self._commit, endpoint=self._endpoint)
        return RemoteFile(self.name, self._commit, name, size, digest, url)

    def _beside(self, entry: FileEntry) -> Path | None:
        """A file that does not lie in the store: a small one, or one that the hub client's own cache has, intact."""
        if (small := self.folder / entry.name).is_file() or not entry.name.endswith(WEIGHTS):
            return checked(small, entry)
        found = try_to_load_from_cache(self.name, entry.name, revision=self._commit)
        return Path(found) if isinstance(found, str) and is_intact(Path(found), entry) else None

    def _ask(self) -> tuple[str, Manifest]:
        """The commit and its manifest, from the hub; from the last time if it does not answer."""
        failures = 0
        while True:
            try:
                info = HfApi(endpoint=self._endpoint).model_info(
                    self.name, revision=self._revision, files_metadata=True, timeout=ANSWER_S
                )
                break
            except Exception as error:  # the hub's and the HTTP client's errors have no common base
                if is_passing(error) and (known := self._recall()) is not None:
                    return known
                failures += 1
                self._pause(failures, error)
        self._commit = str(info.sha)
        if not COMMIT.fullmatch(self._commit):
            raise CheckpointError(f"{self._endpoint} does not answer as a hub does: it names no commit of {self.name}")
        manifest = self._read({sibling.rfilename: sibling for sibling in info.siblings or []})
        write_whole(self._note, json.dumps({"commit": self._commit, "manifest": manifest.pack().hex()}))
        return self._commit, manifest

    def _pause(self, failures: int, error: Exception) -> None:
        """Wait for a hub that is busy. Raises CheckpointError where that is of no use, or there is no network."""
        if not isinstance(error, HfHubHTTPError):
            raise CheckpointError(f"there is no folder {self.name!r}, and {explain(error, self.name)}") from error
        try:
            self._hub.retries.pause(failures, error)
        except HfHubHTTPError:
            raise CheckpointError(explain(error, self.name, self._revision)) from error

    @property
    def _note(self) -> Path:
        key = f"{self._endpoint} {self.name}@{self._revision}"
        return cache_folder() / "manifests" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _recall(self) -> tuple[str, Manifest] | None:
        """What the hub said last time; None if there was none, or if somebody damaged the note."""
        try:
            saved = json.loads(self._note.read_text())
            manifest = Manifest.unpack(bytes.fromhex(saved["manifest"]))
            return (saved["commit"], manifest) if COMMIT.fullmatch(saved["commit"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _read(self, files: Mapping[str, Any]) -> Manifest:
        """The manifest of what the hub lists; fetches the small files. Raises CheckpointError."""
        need_safetensors(self.name, files)
        weights = weight_files(self._small(files[INDEX]) if INDEX in files else None)
        if missing := [name for name in weights if name not in files]:
            raise CheckpointError(f"{self.name} lacks {missing[0]}, which its index names")
        if GENERATION_CONFIG in files:  # beside the manifest: defaults of generate(), which change no hidden state
            self._small(files[GENERATION_CONFIG])
        names = [CONFIG, *tokenizer_files(files), *weights]
        return manifest_of(self.name, (self._entry(files[name]) for name in names))

    def _entry(self, sibling: Any) -> FileEntry:
        name = sibling.rfilename
        if name.endswith(WEIGHTS) and sibling.lfs is not None:
            return FileEntry(name, sibling.lfs.size, bytes.fromhex(sibling.lfs.sha256))
        path = self._small(sibling)
        return FileEntry(name, path.stat().st_size, file_sha256(path))

    def _small(self, sibling: Any) -> Path:
        """A file of the repository in the commit's folder, fetched if it is not there as the hub describes it."""
        size, digest = (sibling.lfs.size, sibling.lfs.sha256) if sibling.lfs else (sibling.size, sibling.blob_id)
        if not isinstance(size, int) or not DIGEST.fullmatch(str(digest)):
            raise CheckpointError(
                f"{self._endpoint} does not describe {sibling.rfilename} of {self.name} as a hub does"
            )
        if size > MAX_SMALL_BYTES:
            raise CheckpointError(f"{sibling.rfilename} of {self.name} is larger than {MAX_SMALL_BYTES} bytes")
        file, path = self._remote(sibling.rfilename, size, digest), self.folder / sibling.rfilename
        try:
            if not file.is_at(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._store.locked(f"{digest}.fetch"):
                    fetch(file, path, path.with_name(f"{path.name}.part"), self._hub.retries)
        except OSError as error:
            raise cannot_write(path.parent, error) from error
        return path
