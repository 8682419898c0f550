"""The identity of a model: which files, how long, with which contents.

    manifest = u32 count | (u16 name length | name | u64 size | SHA-256)*      files sorted by the bytes of their names
    model ID = SHA-256("nectar/model/v1\\n" | manifest)

Two folders with the same configuration, tokenizer and weight files are the same model wherever they lie, and a node
that has only some of the shards still knows the whole model's ID.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NewType

from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError

ModelID = NewType("ModelID", bytes)

MODEL_ROLE = b"nectar/model/v1\n"
MODEL_ID_SIZE = 32
MAX_FILES = 10_000
MAX_NAME = 512


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of a model: its path in the repository, with `/`, its size in bytes, its SHA-256."""

    name: str
    size: int
    sha256: bytes

    def __post_init__(self) -> None:
        size = len(self.name.encode(errors="surrogatepass"))
        if not 0 < size <= MAX_NAME or any(part in ("", ".", "..") for part in self.name.split("/")):
            raise MalformedError(f"{self.name[:64]!r} is not a file name inside a model")
        if any(c < " " or c in "\\\x7f" or "\ud800" <= c <= "\udfff" for c in self.name):
            raise MalformedError(f"{self.name[:64]!r} has a character that file names of a model do not have")
        uint(self.size, 8, "size")
        if len(self.sha256) != hashlib.sha256().digest_size:
            raise MalformedError(f"the digest of {self.name!r} is not a SHA-256")

    def pack(self) -> bytes:
        name = self.name.encode()
        return uint(len(name), 2, "name length") + name + uint(self.size, 8, "size") + self.sha256


@dataclass(frozen=True)
class Manifest:
    """The files of a model, sorted by name. Raises MalformedError for none, too many, or a name twice."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        names = [entry.name.encode() for entry in self.files]
        if not 0 < len(names) <= MAX_FILES:
            raise MalformedError(f"a manifest lists 1 to {MAX_FILES} files, not {len(names)}")
        if any(a >= b for a, b in pairwise(names)):
            raise MalformedError("a manifest's files are sorted by name, each once")

    @classmethod
    def of(cls, files: Iterable[FileEntry]) -> "Manifest":
        return cls(tuple(sorted(files, key=lambda entry: entry.name.encode())))

    def pack(self) -> bytes:
        return uint(len(self.files), 4, "file count") + b"".join(entry.pack() for entry in self.files)

    @classmethod
    def unpack(cls, data: bytes) -> "Manifest":
        """Raises MalformedError for anything that `pack` does not make."""
        reader = Reader(data)
        count = reader.uint(4)
        if count > MAX_FILES:
            raise MalformedError(f"a manifest of {count} files; at most {MAX_FILES} are read")
        files = tuple(FileEntry(reader.text(reader.uint(2)), reader.uint(8), reader.take(32)) for _ in range(count))
        reader.end()
        return cls(files)

    @property
    def model_id(self) -> ModelID:
        return ModelID(hashlib.sha256(MODEL_ROLE + self.pack()).digest())

    def file(self, name: str) -> FileEntry | None:
        return next((entry for entry in self.files if entry.name == name), None)
