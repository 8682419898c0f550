"""SHA-256 of large files, computed once and remembered while the file stays as it was."""

import hashlib
import json
import os
from pathlib import Path

from nectar_swarm.cache import cache_folder, write_whole
from nectar_swarm.errors import CheckpointError
from nectar_swarm.progress import byte_bar

CHUNK = 4 << 20


def file_sha256(path: Path) -> bytes:
    """The digest of a file's contents. Raises CheckpointError if it cannot be read."""
    try:
        real = path.resolve(strict=True)
        before = _stamp(real)
        if (known := _recall(_note(real), before)) is not None:
            return known
        digest = hash_file(real)
        if _stamp(real) != before:
            raise CheckpointError(f"{path} changed while it was read; try again when it is complete")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    _remember(real, before, digest)
    return digest


def learn_sha256(path: Path, digest: bytes) -> None:
    """Remember the digest of a file that was just read whole under another name."""
    real = path.resolve(strict=True)
    _remember(real, _stamp(real), digest)


def _note(real: Path) -> Path:
    return cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(real)).hexdigest()}.json"


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def hash_file(path: Path) -> bytes:
    """The SHA-256 of a file, read now. Raises OSError."""
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


def _remember(real: Path, stamp: list[int], digest: bytes) -> None:
    write_whole(_note(real), json.dumps({"stamp": stamp, "sha256": digest.hex()}))
