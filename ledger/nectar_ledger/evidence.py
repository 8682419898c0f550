"""What verdicts were made from, for anybody with the weights to run again: files by their SHA-256, kept for a time."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from threading import Lock
from types import TracebackType
from typing import Self

from nectar_ledger.errors import FullError, StoreError

MAX_TOTAL_BYTES = 16 << 30
SWEEP_MS = 60_000
RETRY_AFTER_S = 3600.0
NAME = re.compile(r"[0-9a-f]{64}")
DRAFT = ".draft"


class Evidence:
    """A folder. For any number of threads. Raises StoreError if it cannot be used."""

    def __init__(self, folder: Path, clock_ms: Callable[[], int], max_total_bytes: int = MAX_TOTAL_BYTES) -> None:
        self._folder, self._clock_ms, self._max_total_bytes = folder, clock_ms, max_total_bytes
        self._lock = Lock()
        self._next_sweep_ms = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for draft in folder.glob(f"*{DRAFT}"):
                draft.unlink()
            self.total_bytes = sum(path.stat().st_size for path in self._files())
        except OSError as error:
            raise StoreError(f"cannot use {folder}, the folder for evidence: {error.strerror}") from error

    def find(self, sha256: bytes) -> Path | None:
        """The file, if it is here."""
        path = self._folder / sha256.hex()
        return path if path.is_file() else None

    def draft(self) -> "Draft":
        """A new piece of evidence, to be written."""
        return Draft(self._folder / f"{token_hex(16)}{DRAFT}", self)

    def reserve(self, count: int) -> None:
        """Room for `count` bytes more. Raises FullError."""
        with self._lock:
            if self.total_bytes + count > self._max_total_bytes:
                message = f"{self.total_bytes} bytes of evidence are kept already: post it again when some has expired"
                raise FullError(message, RETRY_AFTER_S)
            self.total_bytes += count

    def release(self, count: int) -> None:
        with self._lock:
            self.total_bytes -= count

    def keep(self, draft: Path, sha256: bytes, size: int) -> None:
        """Under its hash, from now on. The same once more begins its time anew."""
        path, now_ns = self._folder / sha256.hex(), self._clock_ms() * 1_000_000
        with self._lock:
            if path.is_file():
                self.total_bytes -= size
            os.utime(draft, ns=(now_ns, now_ns))
            draft.replace(path)

    def sweep(self, life_ms: int) -> None:
        """Once a minute, remove what is older."""
        now_ms = self._clock_ms()
        if now_ms < self._next_sweep_ms:
            return
        self._next_sweep_ms = now_ms + SWEEP_MS
        for path in self._files():
            kept = path.stat()
            if kept.st_mtime_ns // 1_000_000 < now_ms - life_ms:
                path.unlink()
                self.release(kept.st_size)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if NAME.fullmatch(path.name)]


class Draft:
    """A piece of evidence that is being written. Gone unless `keep` is called."""

    def __init__(self, path: Path, evidence: Evidence) -> None:
        self._path, self._evidence = path, evidence
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def write(self, data: bytes) -> None:
        """Raises FullError, StoreError."""
        self._evidence.reserve(len(data))
        self._size += len(data)
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error

    @property
    def sha256(self) -> bytes:
        """Of what has been written."""
        return self._hash.digest()

    def keep(self) -> None:
        """Durable when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._evidence.keep(self._path, self.sha256, self._size)
        self._size = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._evidence.release(self._size)
        self._path.unlink(missing_ok=True)
