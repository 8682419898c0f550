"""Large files by their SHA-256 in Nectar's own cache folder, below a limit if there is one.

    files/SHA256              a whole file, checked
    files/SHA256.SIZE.part    one that is being fetched, or was; counted at its full size
    locks/SHA256.use          locked (shared) by whoever uses the file; its time is that of the last use
    locks/SHA256.fetch        locked by whoever fetches it
    locks/room                locked by whoever makes room

The locks are the system's (flock), so they end with their process, however it ends. Lock files stay, so that a name
always means the same lock. Files are unlinked and never cut: who has one mapped keeps it.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nectar_protocol.manifest import FileEntry

from nectar_swarm.digests import learn_sha256
from nectar_swarm.download import cannot_write
from nectar_swarm.errors import DiskError
from nectar_swarm.modelfiles import is_intact

Fetch = Callable[[Path, Path], None]  # makes the first path, by way of the second


class Held:
    """A file that nobody removes until it is released. `lock` is None where nothing can be locked or removed."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        self.path, self._lock = path, lock

    def release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    __del__ = release


class Store:
    """`max_bytes` bounds whole and partial files together; None removes nothing, ever."""

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self._files, self._locks, self._max_bytes = folder / "files", folder / "locks", max_bytes

    def find(self, entry: FileEntry) -> Held | None:
        """A file that is here, intact. Raises CheckpointError if it cannot be read."""
        lock: int | None = None
        try:
            lock = self._lock(f"{entry.sha256.hex()}.use", fcntl.LOCK_SH)
            os.utime(lock)
        except OSError:
            pass  # a cache folder that others have filled, and that cannot be written: nobody can remove it either
        held = Held(self._path(entry), lock)
        return held if is_intact(held.path, entry) else None

    def get(self, entry: FileEntry, fetch: Fetch) -> Held:
        """A file, fetched if it is not here intact. Raises CheckpointError, and DiskError where there is no room."""
        if (held := self.find(entry)) is not None:
            return held
        try:
            self._files.mkdir(parents=True, exist_ok=True)
            lock = self._lock(f"{entry.sha256.hex()}.use", fcntl.LOCK_SH)
            held = Held(self._path(entry), lock)
            os.utime(lock)
            with self.locked(f"{entry.sha256.hex()}.fetch"):  # for another process to finish, perhaps with this file
                if not is_intact(held.path, entry):
                    held.path.unlink(missing_ok=True)
                    part = self._make_room(entry)
                    fetch(held.path, part)
                    learn_sha256(held.path, entry.sha256)
        except OSError as error:
            raise cannot_write(self._files, error) from error
        return held

    def check_room(self, entries: Iterable[FileEntry]) -> None:
        """Raises DiskError if these files can never be here together."""
        files = list(entries)
        total = sum(entry.size for entry in files)
        if self._max_bytes is not None and total > self._max_bytes:
            raise DiskError(
                f"{len(files)} files of {gigabytes(total)} are needed, and the limit (--max-disk) is "
                f"{gigabytes(self._max_bytes)}: raise it, or serve fewer blocks"
            )
        if self._max_bytes is None:  # else other files may make way
            self._check_disk(sum(entry.size - self._present(entry) for entry in files), f"{len(files)} files")

    def _make_room(self, entry: FileEntry) -> Path:
        """The partial file, for which there is room now. Raises DiskError."""
        part = self._part(entry)
        with self.locked("room"):
            others = [file for file in self._kept() if file.digest != entry.sha256.hex()]
            if self._max_bytes is not None:
                self._evict(others, entry, self._max_bytes)
            self._check_disk(entry.size - self._present(entry), entry.name)
            part.touch()  # from now on others reckon with it
        return part

    def _evict(self, others: "list[_Kept]", entry: FileEntry, max_bytes: int) -> None:
        """Remove what is unused, what was used longest ago first, until there is room. Raises DiskError."""
        excess = sum(file.counted for file in others) + entry.size - max_bytes
        missing = entry.size - self._present(entry) - self._free()
        for file in sorted(others, key=lambda file: file.used_ns):
            if excess <= 0 and missing <= 0:
                return
            if self._remove(file):
                excess, missing = excess - file.counted, missing - file.present
        if excess > 0:
            raise DiskError(
                f"{entry.name} needs {gigabytes(entry.size)}; the rest of the limit (--max-disk) of "
                f"{gigabytes(max_bytes)} is in use by running nodes and clients: raise it by {gigabytes(excess)}, "
                "serve fewer blocks, or end one of them"
            )

    def _remove(self, file: "_Kept") -> bool:
        """Remove a file unless somebody uses it."""
        try:
            lock = self._lock(f"{file.digest}.use", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            file.path.unlink(missing_ok=True)
        finally:
            os.close(lock)
        return True

    def _check_disk(self, needed: int, what: str) -> None:
        if needed > (free := self._free()):
            raise DiskError(
                f"{what} need {gigabytes(needed)} more on the disk of {self._files}, which has {gigabytes(free)} free: "
                "make room there, or set NECTAR_CACHE to a folder on another disk"
            )

    def _free(self) -> int:
        folder = next(path for path in (self._files, *self._files.parents) if path.exists())
        return shutil.disk_usage(folder).free

    def _kept(self) -> "Iterator[_Kept]":
        """All files of the store, but what is not ours."""
        for path in self._files.iterdir():
            digest, _, rest = path.name.partition(".")
            size, _, end = rest.partition(".")
            if len(digest) != 64 or (rest and not (size.isdigit() and end == "part")):
                continue
            present = path.stat().st_size
            use = self._locks / f"{digest}.use"
            used_ns = use.stat().st_mtime_ns if use.exists() else 0
            yield _Kept(path, digest, int(size) if rest else present, present, used_ns)

    def _path(self, entry: FileEntry) -> Path:
        return self._files / entry.sha256.hex()

    def _part(self, entry: FileEntry) -> Path:
        return self._files / f"{entry.sha256.hex()}.{entry.size}.part"

    def _present(self, entry: FileEntry) -> int:
        """How many bytes of a file are here."""
        paths = (self._path(entry), self._part(entry))
        return min(entry.size, max((path.stat().st_size for path in paths if path.exists()), default=0))

    def _lock(self, name: str, how: int) -> int:
        """A locked file; closing it ends the lock. Raises OSError."""
        self._locks.mkdir(parents=True, exist_ok=True)
        file = os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, how)
        except BaseException:
            os.close(file)
            raise
        return file

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Alone with what this lock stands for. Raises OSError."""
        lock = self._lock(name, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)


class _Kept(NamedTuple):
    path: Path
    digest: str
    counted: int  # bytes, with those of a partial file that are still to come
    present: int  # bytes
    used_ns: int


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
