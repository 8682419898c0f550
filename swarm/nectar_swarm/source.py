"""Where a model's files come from: a local folder, or a hub's repository, of which only what is needed is fetched."""

import contextlib
import fnmatch
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from nectar_protocol.errors import MalformedError
from nectar_protocol.manifest import FileEntry, Manifest

from nectar_swarm.digests import cache_folder, file_sha256
from nectar_swarm.errors import CheckpointError

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.*",
)  # fmt: skip
MAX_INDEX_BYTES = 64 << 20


class Source(Protocol):
    """A model's files. `folder` holds its small files (configuration, tokenizer), for Transformers to read."""

    name: str

    @property
    def manifest(self) -> Manifest: ...

    @property
    def folder(self) -> Path: ...

    def path(self, name: str) -> Path:
        """A file of the manifest as it lies on this machine, checked. Raises CheckpointError."""
        ...


def open_source(name: str, revision: str = "main") -> Source:
    """A folder of that name, or else a repository of the hub. Raises CheckpointError for neither."""
    try:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return LocalFolder(folder)
    except (OSError, RuntimeError) as error:  # too long a name, or the home of nobody
        raise CheckpointError(f"{name[:128]!r} is neither a folder nor a model's name on the hub: {error}") from error
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"there is no folder {name}; give a model's folder or its name on the hub")
    return HubRepository(name, revision)


def weight_files(index: Path | None) -> list[str]:
    """The names of a model's weight files: those in its index, or the single file's. Raises CheckpointError."""
    if index is None:
        return [SINGLE]
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise CheckpointError(f"{index} is larger than {MAX_INDEX_BYTES} bytes")
        weight_map = json.loads(index.read_text())["weight_map"]
        shards = sorted({FileEntry(shard, 0, bytes(32)).name for shard in weight_map.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index} is not an index of weight files: {error}") from error
    if not shards or not all(shard.endswith(".safetensors") for shard in shards):
        raise CheckpointError(f"{index} is not an index of weight files: it names {shards[:3]}")
    return [INDEX, *shards]


def tokenizer_files(names: Iterable[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in TOKENIZER_FILES)]


class LocalFolder:
    """A checkpoint in a folder, all of it on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f"{folder} has no {CONFIG}; it is not a model's folder")
        index = folder / INDEX
        if not index.is_file() and not (folder / SINGLE).is_file():
            raise CheckpointError(f"{folder} has no safetensors weights ({SINGLE} or {INDEX})")
        self._names = [
            CONFIG,
            *tokenizer_files(path.name for path in folder.iterdir() if path.is_file()),
            *weight_files(index if index.is_file() else None),
        ]
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """Hashes every file on first use; raises CheckpointError if one is missing."""
        if self._manifest is None:
            self._manifest = _manifest_of(self.name, (self._entry(name) for name in self._names))
        return self._manifest

    def _entry(self, name: str) -> FileEntry:
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError(f"{self.folder} lacks {name}, which its index names")
        return FileEntry(name, path.stat().st_size, file_sha256(path))

    def path(self, name: str) -> Path:
        return checked(self.folder / name, name, self.manifest)


class HubRepository:
    """A repository on a hub. Its manifest comes from the hub's metadata, so that no weights are fetched for it."""

    def __init__(self, name: str, revision: str) -> None:
        self.name = name
        self._note = cache_folder() / "manifests" / f"{hashlib.sha256(f'{name}@{revision}'.encode()).hexdigest()}.json"
        try:
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
        except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError, HFValidationError) as error:
            raise CheckpointError(
                f"there is no model {name!r} (revision {revision}) here or on the hub that you may read"
            ) from error
        except Exception as error:  # no network (the HTTP client has errors of its own), or offline mode
            self._commit, self._manifest = self._recall(error)  # what was fetched before still serves
        else:
            self._commit = str(info.sha)
            self._manifest = self._read(info.siblings or [])
            self._remember()
        self.folder = self._fetch(CONFIG).parent
        for entry in self._manifest.files:
            if not entry.name.endswith(".safetensors"):
                self.path(entry.name)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def path(self, name: str) -> Path:
        return checked(self._fetch(name), name, self._manifest)

    def _read(self, siblings: list[Any]) -> Manifest:
        files = {sibling.rfilename: sibling for sibling in siblings}
        if CONFIG not in files or (INDEX not in files and SINGLE not in files):
            raise CheckpointError(f"{self.name} has no {CONFIG} or no safetensors weights ({SINGLE} or {INDEX})")
        weights = weight_files(self._fetch(INDEX) if INDEX in files else None)
        if missing := [name for name in weights if name not in files]:
            raise CheckpointError(f"{self.name} lacks {missing[0]}, which its index names")
        if GENERATION_CONFIG in files:  # beside the manifest: defaults of generate(), which change no hidden state
            self._fetch(GENERATION_CONFIG)
        names = [CONFIG, *tokenizer_files(files), *weights]
        return _manifest_of(self.name, (self._entry(files[name]) for name in names))

    def _entry(self, sibling: Any) -> FileEntry:
        if sibling.lfs is not None:
            return FileEntry(sibling.rfilename, sibling.lfs.size, bytes.fromhex(sibling.lfs.sha256))
        path = self._fetch(sibling.rfilename)  # a small file, for which the hub keeps no SHA-256
        return FileEntry(sibling.rfilename, path.stat().st_size, file_sha256(path))

    def _fetch(self, name: str) -> Path:
        try:
            return Path(hf_hub_download(self.name, name, revision=self._commit))
        except Exception as error:  # the hub's and the HTTP client's errors have no common base
            raise CheckpointError(f"cannot fetch {name} of {self.name} from the hub: {error}") from error

    def _remember(self) -> None:
        note = json.dumps({"commit": self._commit, "manifest": self._manifest.pack().hex()})
        with contextlib.suppress(OSError):  # a read-only cache folder keeps us from working offline, nothing else
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.write_text(note)

    def _recall(self, cause: Exception) -> tuple[str, Manifest]:
        try:
            saved = json.loads(self._note.read_text())
            return saved["commit"], Manifest.unpack(bytes.fromhex(saved["manifest"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"there is no folder {self.name!r}, and the hub cannot be reached to look for a model of that name"
            ) from (cause or error)


def _manifest_of(name: str, entries: Iterable[FileEntry]) -> Manifest:
    """Raises CheckpointError for files that no manifest can list."""
    try:
        return Manifest.of(entries)
    except MalformedError as error:
        raise CheckpointError(f"{name} is not a model that Nectar can name: {error}") from error


def checked(path: Path, name: str, manifest: Manifest) -> Path:
    """`path` if it holds what the manifest says. Raises CheckpointError."""
    entry = manifest.file(name)
    if entry is None:
        raise CheckpointError(f"{name} is not a file of this model")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if path.stat().st_size != entry.size or file_sha256(path) != entry.sha256:
        raise CheckpointError(f"{path} is not the file that the model names: it is damaged or was replaced; remove it")
    return path
