"""The log's own shape: its tiles and checkpoints must be those of its entries."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from nectar_protocol.merkle import HASH_SIZE, Frontier, Hash, leaf_hash
from nectar_protocol.tiles import WIDTH, Tile, grow

from nectar_ledger.audit.report import Report

FindTile = Callable[[Tile], bytes | None]  # what is kept of a tile, all of it; None if nothing is


class Known(NamedTuple):
    """What a checkpoint says, and where it is kept."""

    size: int
    root: Hash
    place: str


class Tree:
    """Grows as the log did. `checkpoints` come in the order of their sizes."""

    def __init__(self, find_tile: FindTile, checkpoints: Iterable[Known], report: Report) -> None:
        self.frontier = Frontier()
        self._find_tile, self._report = find_tile, report
        self._checkpoints: Iterator[Known] = iter(checkpoints)
        self._next = next(self._checkpoints, None)
        # By level and index, until they are full.
        self._open: dict[tuple[int, int], bytes] = {}

    def take(self, entries: Sequence[bytes]) -> None:
        done = 0
        while self._next is not None and self._next.size <= self.frontier.size + len(entries) - done:
            until = done + self._next.size - self.frontier.size
            self._grow(entries[done:until])
            done = until
            self._check_root(self._next)
            self._next = next(self._checkpoints, None)
        self._grow(entries[done:])

    def finish(self) -> None:
        """The log has no more entries."""
        self.take(())
        for (level, index), hashes in self._open.items():
            self._check(Tile(level, index, len(hashes) // HASH_SIZE), hashes)
        while self._next is not None:
            message = f"it is over {self._next.size} entries, and the log has {self.frontier.size}: some are lost"
            self._report.find(self._next.place, message)
            self._next = next(self._checkpoints, None)

    def _grow(self, entries: Sequence[bytes]) -> None:
        for (level, index), more in grow(self.frontier, map(leaf_hash, entries)).items():
            hashes = self._open.pop((level, index), b"") + more
            if len(hashes) == WIDTH * HASH_SIZE:
                self._check(Tile(level, index), hashes)
            else:
                self._open[level, index] = hashes

    def _check_root(self, known: Known) -> None:
        self._report.checked["checkpoints"] += 1
        if self.frontier.root() != known.root:
            self._report.find(known.place, f"its root is not that of the log's first {known.size} entries: a fork")

    def _check(self, tile: Tile, due: bytes) -> None:
        self._report.checked["tiles"] += 1
        kept = self._find_tile(tile)
        if kept == due:
            return
        if kept is None:
            self._report.find(tile.path, "the tile is missing")
        elif len(kept) != len(due):
            self._report.find(tile.path, f"the tile has {len(kept)} bytes; the log's entries give {len(due)}")
        else:
            for at in range(0, len(due), HASH_SIZE):
                if kept[at : at + HASH_SIZE] != due[at : at + HASH_SIZE]:
                    position = at // HASH_SIZE
                    index = tile.index * WIDTH + position if tile.level == 0 else None
                    self._report.find(tile.path, f"hash {position} is not what the log's entries give", index)
