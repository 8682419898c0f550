"""SHA-256 of large files, computed once and remembered while the file stays as it was."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from nectar_swarm.errors import CheckpointError
from nectar_swarm.progress import byte_bar

CHUNK = 4 << 20


def cache_folder() -> Path:
    """Where Nectar keeps what it can compute again: $NECTAR_CACHE, or nectar in the user's cache folder."""
    if folder := os.environ.get("NECTAR_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nectar"


def file_sha256(path: Path) -> bytes:
    """The digest of a file's contents. Raises CheckpointError if it cannot be read."""
    try:
        real = path.resolve(strict=True)
        before = _stamp(real)
        note = cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(real)).hexdigest()}.json"
        if (known := _recall(note, before)) is not None:
            return known
        digest = _hash(real)
        if _stamp(real) != before:
            raise CheckpointError(f"{path} changed while it was read; try again when it is complete")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    _remember(note, before, digest)
    return digest


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _hash(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file, byte_bar(f"checking {path.name}", path.stat().st_size) as advance:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.digest()


def _recall(note: Path, stamp: list[int]) -> bytes | None:
    try:
        saved = json.loads(note.read_text())
        digest = bytes.fromhex(saved["sha256"])
        return digest if saved["stamp"] == stamp and len(digest) == hashlib.sha256().digest_size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no note, or one that somebody damaged: the file itself is read again


def _remember(note: Path, stamp: list[int], digest: bytes) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as file:
            json.dump({"stamp": stamp, "sha256": digest.hex()}, file)
        os.replace(file.name, note)
    except OSError:
        pass  # a read-only cache folder costs time, nothing else
