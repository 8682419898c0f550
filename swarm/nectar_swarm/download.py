"""One file from a hub by HTTP. What has arrived stays in a partial file, and a later try, or process, goes on from it.

The hub's own client begins anew when its process has died, so it serves for addresses, headers and errors only.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from nectar_swarm.digests import hash_file
from nectar_swarm.errors import CheckpointError, DiskError
from nectar_swarm.progress import Advance, byte_bar
from nectar_swarm.retries import Retries, explain

ENOUGH = 1 << 20  # bytes after which a cut counts as the first


@dataclass(frozen=True)
class RemoteFile:
    """A file as a hub describes it. `digest` is its SHA-256, or the SHA-1 of a file that Git itself keeps, in hex."""

    repository: str
    commit: str
    name: str
    size: int
    digest: str
    url: str

    def is_at(self, path: Path) -> bool:
        """Does `path` hold this file? Reads all of it. Raises OSError."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if len(self.digest) == 64:
            return hash_file(path).hex() == self.digest
        return hashlib.sha1(b"blob %d\0" % self.size + path.read_bytes()).hexdigest() == self.digest


def fetch(file: RemoteFile, path: Path, part: Path, retries: Retries) -> None:
    """Make `path` this file, by way of `part`, which is nobody else's now. What arrives damaged is fetched once more.

    Raises CheckpointError, DiskError.
    """
    try:
        for _ in range(2):
            _complete(file, part, retries)
            if file.is_at(part):
                os.replace(part, path)
                return
            part.unlink()
    except OSError as error:
        raise cannot_write(part.parent, error) from error
    raise CheckpointError(
        f"{file.name} of {file.repository} arrived damaged, twice: what the hub sends is not what it describes. "
        "Try again later, or tell the repository's owner"
    )


def cannot_write(folder: Path, error: OSError) -> DiskError:
    return DiskError(
        f"cannot write in {folder}: {error.strerror or error}. Make room there, or set NECTAR_CACHE to a folder on a "
        "disk that has room and that you may write"
    )


def _complete(file: RemoteFile, part: Path, retries: Retries) -> None:
    """Bring `part` to the file's size. Raises CheckpointError; OSError for the disk."""
    failures = 0
    with part.open("ab") as out:
        if out.tell() > file.size:
            _empty(out)
        with byte_bar(f"fetching {file.name}", file.size, out.tell()) as advance:
            while (before := out.tell()) < file.size:
                try:
                    _append(_pieces(file, before), out, file.size, advance)
                except _Cut as cut:
                    failures = 1 if out.tell() - before >= ENOUGH else failures + 1
                    _pause(file, failures, cut.cause, retries)
        os.fsync(out.fileno())  # else a power cut may leave a whole file of zeros under its final name


class _Cut(Exception):
    """An answer failed, or ended too early."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _pieces(file: RemoteFile, have: int) -> Iterator[tuple[int, bytes]]:
    """What one request brings, with where in the file it belongs: after `have` bytes, or from the start if the hub
    will have it so. Raises _Cut."""
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with get_session().stream("GET", file.url, headers=headers, timeout=timeout_s) as response:
            hf_raise_for_status(response)
            place = have if response.headers.get("Content-Range", "").startswith(f"bytes {have}-") else 0
            for piece in response.iter_bytes():
                yield place, piece
                place += len(piece)
        if place < file.size:
            raise ConnectionError("the hub's answer ended before the file did")
    except Exception as error:  # the hub's and the HTTP client's errors have no common base
        raise _Cut(error) from error


def _append(pieces: Iterator[tuple[int, bytes]], out: BinaryIO, size: int, advance: Advance) -> None:
    for place, piece in pieces:
        if place < out.tell():
            advance(-out.tell())
            _empty(out)
        out.write(piece[: size - out.tell()])
        out.flush()  # what the system has outlives this process
        advance(len(piece))


def _empty(out: BinaryIO) -> None:
    out.seek(0)
    out.truncate()


def _pause(file: RemoteFile, failures: int, error: Exception, retries: Retries) -> None:
    try:
        retries.pause(failures, error)
    except Exception as final:
        raise CheckpointError(
            f"cannot fetch {file.name} of {file.repository}: {explain(final, file.repository, file.commit)}"
        ) from final
