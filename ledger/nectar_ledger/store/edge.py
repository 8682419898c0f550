"""The right edge of the log, in memory: all that is needed to append."""

from collections.abc import Sequence

from nectar_protocol.merkle import HASH_SIZE, Frontier, leaf_hash
from nectar_protocol.proofs import subtree_root
from nectar_protocol.tiles import MAX_ENTRY_BYTES, MAX_LEVEL, WIDTH, Tile, grow, tiles_reader

from nectar_ledger.errors import DamagedError, NotFoundError, StoreError
from nectar_ledger.store.reading import ReadTile

TileId = tuple[int, int]  # level, index


class Edge:
    """The frontier, the last tile of each level while it is partial, and the time of the last entry."""

    def __init__(self, frontier: Frontier, time_ms: int, read_tile: ReadTile) -> None:
        """Raises DamagedError if the tiles are not those of the frontier."""
        self.frontier, self.time_ms = frontier, time_ms
        self._partial: dict[TileId, bytes] = {}
        try:
            root = subtree_root(tiles_reader(read_tile, frontier.size), 0, frontier.size)
            for level in range(MAX_LEVEL + 1):
                index, width = divmod(frontier.size >> 8 * level, WIDTH)
                if width:
                    self._partial[level, index] = read_tile(Tile(level, index, width))
        except NotFoundError as error:
            raise DamagedError(f"a tile is too short ({error}): restore the database from a backup") from error
        if root != frontier.root():
            raise DamagedError("the log's tiles do not give its root: restore the database from a backup")

    @property
    def size(self) -> int:
        return self.frontier.size

    def append(self, entries: Sequence[bytes], time_ms: int) -> dict[TileId, bytes]:
        """The whole contents of every tile that changed. Raises StoreError for an entry that no bundle can hold."""
        for entry in entries:
            if not 0 < len(entry) <= MAX_ENTRY_BYTES:
                raise StoreError(f"an entry has 1 to {MAX_ENTRY_BYTES} bytes, not {len(entry)}")
        grown = grow(self.frontier, map(leaf_hash, entries))
        tiles = {tile: self._partial.pop(tile, b"") + hashes for tile, hashes in grown.items()}
        self._partial |= {tile: hashes for tile, hashes in tiles.items() if len(hashes) < WIDTH * HASH_SIZE}
        self.time_ms = time_ms
        return tiles
