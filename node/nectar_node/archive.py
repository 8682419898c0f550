"""What a node received and what it sent, kept while a session lives and for two minutes after it.

What was sent rebuilds a replacement; what was received rebuilds this node's own KV after an eviction, and is what
somebody who checks this node's work asks for. So nothing is ever dropped silently: room is reserved when a session
opens, and a full archive refuses. What somebody asks for with the session's signature is pinned, and stays longer. The
newest is in memory; what goes beyond the limit is written to a file per session, oldest first.
"""

import asyncio
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from nectar_node.errors import FullError, RecordError

RETENTION_S = 120.0
MEMORY_BYTES = 512 << 20
MAX_PINNED, PINNED_SHARE = 256, 4  # histories that others asked for, and the part of all room that they may take

log = logging.getLogger(__name__)


class Kept:
    """One tensor of a record, in memory or in the record's file."""

    __slots__ = ("_offset", "dtype", "nbytes", "record", "shape", "tensor")

    def __init__(self, record: "Record", tensor: torch.Tensor) -> None:
        self.record, self._offset = record, 0
        self.tensor: torch.Tensor | None = tensor
        self.shape, self.dtype, self.nbytes = tensor.shape, tensor.dtype, tensor.nbytes

    def load(self) -> torch.Tensor:
        """The tensor, read back if it was written out. From any thread. Raises RecordError."""
        tensor = self.tensor  # once: the other thread may spill meanwhile
        if tensor is not None:
            return tensor
        data = bytearray(self.nbytes)
        try:
            with self.record.path.open("rb") as file:
                file.seek(self._offset)
                read = file.readinto(data)
        except OSError as error:
            raise RecordError(f"this node cannot read the session's history: {error.strerror}") from error
        if read < self.nbytes:
            raise RecordError("the session's history has been cut short on this node's disk")
        return torch.frombuffer(data, dtype=self.dtype).view(self.shape)

    def spill(self) -> None:
        """Write the tensor to the end of the file and let its memory go. Raises OSError, with the tensor kept."""
        assert self.tensor is not None, "what is on disk is not written again"
        with self.record.path.open("ab") as file:
            offset = file.tell()
            file.write(self.tensor.contiguous().view(torch.uint8).numpy().data)
        self._offset, self.tensor = offset, None


class Record:
    """One session's tensors. `reserved_bytes` count against the archive."""

    def __init__(self, archive: "Archive", path: Path, reserved_bytes: int) -> None:
        self.path, self.reserved_bytes = path, reserved_bytes
        self.used_bytes = 0
        self.pinned_s = 0.0  # until when in the loop's time, though it is over
        self.on_drop: Callable[[], None] = lambda: None
        self.in_memory: set[Kept] = set()
        self._archive = archive

    def keep(self, tensor: torch.Tensor) -> Kept:
        """Raises FullError when the session has outgrown its reservation and there is no more room."""
        self._archive.make_room(self, self.used_bytes + tensor.nbytes - self.reserved_bytes)
        kept = Kept(self, tensor)
        self._archive.hold(kept)
        self.used_bytes += tensor.nbytes
        return kept

    def close(self) -> None:
        """The session has ended: keep what there is for two minutes, and give back what was only reserved."""
        self._archive.retire(self)

    def pin(self, life_s: float) -> None:
        """Keep it for so long at least. Raises FullError where too much is pinned already."""
        self._archive.pin(self, life_s)


class Archive:
    """`total_bytes` bounds all records together, `memory_bytes` those in memory. Lives in one loop."""

    def __init__(self, total_bytes: int, memory_bytes: int = MEMORY_BYTES, retention_s: float = RETENTION_S) -> None:
        self.total_bytes = self.free_bytes = total_bytes
        self.held_bytes = 0  # in memory
        self._memory_bytes, self._retention_s = memory_bytes, retention_s
        self._folder = tempfile.TemporaryDirectory(prefix="nectar-history-", ignore_cleanup_errors=True)
        self._in_memory: OrderedDict[Kept, None] = OrderedDict()  # oldest first
        self._pinned: set[Record] = set()
        self._writable = True  # as far as is known
        self._count = 0

    def open(self, expected_bytes: int) -> Record | None:
        """A record with room for so much; None when there is not as much left."""
        memory_bytes = self._memory_bytes - self.held_bytes
        if expected_bytes > (self.free_bytes if self._writable else min(self.free_bytes, memory_bytes)):
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

    def hold(self, kept: Kept) -> None:
        """Take a tensor into memory; the oldest ones make way. Raises FullError, with those kept, if they cannot."""
        while self._in_memory and self.held_bytes + kept.nbytes > self._memory_bytes:
            oldest = next(iter(self._in_memory))
            try:
                oldest.spill()
            except OSError as error:
                self._writable = False
                log.error("cannot write a session's history: %s", error)
                raise FullError("this node cannot write to its disk; it kept all that came before") from error
            self._writable = True
            self._forget(oldest)
        self._in_memory[kept] = None
        kept.record.in_memory.add(kept)
        self.held_bytes += kept.nbytes

    def _forget(self, kept: Kept) -> None:
        """A tensor is no longer in memory."""
        del self._in_memory[kept]
        kept.record.in_memory.remove(kept)
        self.held_bytes -= kept.nbytes

    def retire(self, record: Record) -> None:
        self.free_bytes += record.reserved_bytes - record.used_bytes
        record.reserved_bytes = record.used_bytes
        if record.used_bytes:
            asyncio.get_running_loop().call_later(self._retention_s, self._drop, record)
        else:
            record.on_drop()

    def pin(self, record: Record, life_s: float) -> None:
        """Keep a record for so long at least. Raises FullError where too much is pinned already."""
        now_s = asyncio.get_running_loop().time()
        self._pinned = {other for other in self._pinned if other.pinned_s > now_s}
        pinned_bytes = sum(other.reserved_bytes for other in self._pinned | {record})
        if len(self._pinned | {record}) > MAX_PINNED or pinned_bytes > self.total_bytes // PINNED_SHARE:
            raise FullError("this node keeps as many histories for others as it can; ask again later")
        record.pinned_s = max(record.pinned_s, now_s + life_s)
        self._pinned.add(record)

    def _drop(self, record: Record) -> None:
        loop = asyncio.get_running_loop()
        if record.pinned_s > loop.time():
            loop.call_at(record.pinned_s, self._drop, record)
            return
        self._pinned.discard(record)
        record.on_drop()
        self.free_bytes += record.reserved_bytes
        for kept in list(record.in_memory):
            self._forget(kept)
        record.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete all files."""
        self._folder.cleanup()
