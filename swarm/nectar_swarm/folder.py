"""A model whose files lie in a folder of this machine."""

from collections.abc import Iterable
from pathlib import Path

from nectar_protocol.manifest import FileEntry, Manifest

from nectar_swarm.digests import file_sha256
from nectar_swarm.errors import CheckpointError
from nectar_swarm.modelfiles import (
    CONFIG,
    INDEX,
    checked,
    entry_of,
    manifest_of,
    need_safetensors,
    tokenizer_files,
    weight_files,
)


class LocalFolder:
    """A checkpoint in a folder, all of it on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)
        files = [path.name for path in folder.iterdir() if path.is_file()]
        need_safetensors(self.name, files)
        index = folder / INDEX if INDEX in files else None
        self._names = [CONFIG, *tokenizer_files(files), *weight_files(index)]
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """Hashes every file on first use; raises CheckpointError if one is missing."""
        if self._manifest is None:
            self._manifest = manifest_of(self.name, (self._entry(name) for name in self._names))
        return self._manifest

    def _entry(self, name: str) -> FileEntry:
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError(f"{self.folder} lacks {name}, which its index names")
        return FileEntry(name, path.stat().st_size, file_sha256(path))

    def expect(self, names: Iterable[str]) -> None:
        """Everything is here."""

    def path(self, name: str) -> Path:
        return checked(self.folder / name, entry_of(name, self.manifest))

    def release(self) -> None:
        """Nothing is held."""
