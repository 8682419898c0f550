"""What a node received and what it sent, kept while a session lives and for two minutes after it.

What was sent rebuilds a replacement; what was received rebuilds this node's own KV after an eviction, and is what
somebody who checks this node's work asks for. So nothing is ever dropped silently: room is reserved when a session
opens, and a full archive refuses. The newest is in memory; what goes beyond the limit is written to a file per session,
oldest first.
"""

import asyncio
import logging
import tempfile
from collections import deque
from pathlib import Path

import torch

from nectar_node.errors import FullError

RETENTION_S = 120.0
MEMORY_BYTES = 512 << 20

log = logging.getLogger(__name__)


class Kept:
    """One tensor of a session's record, in memory or in the record's file."""

    __slots__ = ("_offset", "_path", "dtype", "nbytes", "shape", "tensor")

    def __init__(self, path: Path, tensor: torch.Tensor) -> None:
        self._path, self._offset = path, 0
        self.tensor: torch.Tensor | None = tensor
        self.shape, self.dtype, self.nbytes = tensor.shape, tensor.dtype, tensor.nbytes

    def load(self) -> torch.Tensor:
        """The tensor, read back if it was written out. From any thread."""
        tensor = self.tensor  # once: the other thread may spill meanwhile
        if tensor is not None:
            return tensor
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = bytearray(file.read(self.nbytes))
        return torch.frombuffer(data, dtype=self.dtype).view(self.shape)

    def spill(self) -> None:
        """Write the tensor to the end of the file and let its memory go. Raises OSError, with the tensor kept."""
        assert self.tensor is not None, "what is on disk is not written again"
        with self._path.open("ab") as file:
            offset = file.tell()
            file.write(self.tensor.contiguous().view(torch.uint8).numpy().data)
        self._offset, self.tensor = offset, None


class Record:
    """One session's tensors, in the order in which they came. `reserved_bytes` count against the archive."""

    def __init__(self, archive: "Archive", path: Path, reserved_bytes: int) -> None:
        self.path, self.reserved_bytes = path, reserved_bytes
        self.used_bytes = 0
        self.in_memory: deque[Kept] = deque()
        self._archive = archive

    def keep(self, tensor: torch.Tensor) -> Kept:
        """Raises FullError when the session has outgrown its reservation and there is no more room."""
        self._archive.make_room(self, self.used_bytes + tensor.nbytes - self.reserved_bytes)
        self.used_bytes += tensor.nbytes
        kept = Kept(self.path, tensor)
        self._archive.hold(self, kept)
        return kept

    def close(self) -> None:
        """The session has ended: keep what there is for two minutes, and give back what was only reserved."""
        self._archive.retire(self)


class Archive:
    """`total_bytes` bounds all records together, `memory_bytes` those in memory. Lives in one loop."""

    def __init__(self, total_bytes: int, memory_bytes: int = MEMORY_BYTES, retention_s: float = RETENTION_S) -> None:
        self.total_bytes = self.free_bytes = total_bytes
        self.held_bytes = 0  # in memory
        self._memory_bytes, self._retention_s = memory_bytes, retention_s
        self._folder = tempfile.TemporaryDirectory(prefix="nectar-history-", ignore_cleanup_errors=True)
        self._in_memory: dict[Record, None] = {}  # those with something in memory, oldest first
        self._count = 0

    def open(self, expected_bytes: int) -> Record | None:
        """A record with room for so much; None when there is not as much left."""
        if expected_bytes > self.free_bytes:
            return None
        self.free_bytes -= expected_bytes
        self._count += 1
        return Record(self, Path(self._folder.name) / str(self._count), expected_bytes)

    def make_room(self, record: Record, missing_bytes: int) -> None:
        """Extend a reservation, if anything is missing. Raises FullError."""
        if missing_bytes <= 0:
            return
        if missing_bytes > self.free_bytes:
            raise FullError("this node has no more room for what the session sends; it kept all that came before")
        self.free_bytes -= missing_bytes
        record.reserved_bytes += missing_bytes

    def hold(self, record: Record, kept: Kept) -> None:
        record.in_memory.append(kept)
        self._in_memory[record] = None
        self.held_bytes += kept.nbytes
        while self.held_bytes > self._memory_bytes:
            oldest = next(iter(self._in_memory))
            try:
                oldest.in_memory[0].spill()
            except OSError as error:  # what has come is kept, in memory; nothing more is taken
                log.error("cannot write a session's history: %s", error)
                self.free_bytes = 0
                return
            self.held_bytes -= oldest.in_memory.popleft().nbytes
            if not oldest.in_memory:
                del self._in_memory[oldest]

    def retire(self, record: Record) -> None:
        self.free_bytes += record.reserved_bytes - record.used_bytes
        record.reserved_bytes = record.used_bytes
        asyncio.get_running_loop().call_later(self._retention_s, self._drop, record)

    def _drop(self, record: Record) -> None:
        self.free_bytes += record.reserved_bytes
        self.held_bytes -= sum(kept.nbytes for kept in record.in_memory)
        self._in_memory.pop(record, None)
        record.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete all files."""
        self._folder.cleanup()
