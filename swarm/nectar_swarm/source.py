"""Where a model's files come from: a local folder, or a hub's repository, of which only what is needed is fetched."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from nectar_protocol.manifest import Manifest

from nectar_swarm.errors import CheckpointError
from nectar_swarm.folder import LocalFolder
from nectar_swarm.hub import HubAccess, HubRepository


class Source(Protocol):
    """A model's files. `folder` holds its small files (configuration, tokenizer), for Transformers to read."""

    name: str

    @property
    def manifest(self) -> Manifest: ...

    @property
    def folder(self) -> Path: ...

    def expect(self, names: Iterable[str]) -> None:
        """Say which files will be asked for. Raises DiskError if there is no room for all of them."""
        ...

    def path(self, name: str) -> Path:
        """A file of the manifest as it lies on this machine, checked, and held until `release`. Raises
        CheckpointError."""
        ...

    def release(self) -> None:
        """From now on the files may be removed to make room."""
        ...


def open_source(name: str, revision: str = "main", hub: HubAccess | None = None) -> Source:
    """A folder of that name, or else a repository of the hub. Raises CheckpointError for neither."""
    try:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return LocalFolder(folder)
    except (OSError, RuntimeError) as error:  # too long a name, or the home of nobody
        raise CheckpointError(f"{name[:128]!r} is neither a folder nor a model's name on the hub: {error}") from error
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"there is no folder {name}; give a model's folder or its name on the hub")
    return HubRepository(name, revision, hub or HubAccess())
