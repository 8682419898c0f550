"""A log as static files: c2sp.org/tlog-tiles.

    tile/<level>/<index>[.p/<width>]        up to 256 hashes of the tree, each the root over 256^level leaves
    tile/entries/<index>[.p/<width>]        up to 256 entries, each with its length in a u16 before it

An index is written in groups of three digits, all but the last after an `x`: 1234067 is `x001/x234/067`. Only the last
tile of a level is partial, and a full one never changes. Tiles prove nothing by themselves: check what is made of them
against a checkpoint.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError
from nectar_protocol.merkle import HASH_SIZE, MAX_LEAVES, Frontier, Hash, split_hashes, tree_size
from nectar_protocol.proofs import HashReader, perfect_root

WIDTH = 256
# 256^8 is more than the largest tree has leaves.
MAX_LEVEL = 7
ENTRIES = -1
MAX_ENTRY_BYTES = 65_535
MAX_PATH = 64

PATH = re.compile(r"tile/(entries|[0-7])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, order=True)
class Tile:
    """The first `width` of the 256 hashes of tile `index` at `level`; of its entries where the level is ENTRIES."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not ENTRIES <= self.level <= MAX_LEVEL or not 1 <= self.width <= WIDTH or self.index < 0:
            raise MalformedError(f"no tree has a tile {self.index} of level {self.level} and width {self.width}")
        if self.index * WIDTH + self.width > MAX_LEAVES >> 8 * max(self.level, 0):
            raise MalformedError(f"tile {self.index} of level {self.level} lies beyond the largest tree")

    @property
    def path(self) -> str:
        """Where it is served, below the log's prefix."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        groups = [f"{self.index % 1000:03}"]
        index = self.index // 1000
        while index:
            groups.append(f"x{index % 1000:03}")
            index //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @classmethod
    def parse(cls, path: str) -> "Tile":
        """Raises MalformedError for anything that `path` does not give."""
        match = PATH.fullmatch(path) if len(path) <= MAX_PATH else None
        if match is None:
            raise MalformedError(f"{path[:MAX_PATH]!r} is not the path of a tile")
        level, groups, width = match.groups()
        index = int(groups.replace("x", "").replace("/", ""))
        tile = cls(ENTRIES if level == "entries" else int(level), index, int(width or WIDTH))
        if tile.path != path:
            raise MalformedError(f"{path!r} is the tile {tile.path!r} in another spelling")
        return tile


def new_tiles(old_size: int, new_size: int) -> Iterator[Tile]:
    """The tiles of hashes that a tree of `new_size` has and one of `old_size` has not: all of them if that is 0.

    Entry bundles are as the tiles of level 0. Raises MalformedError for sizes out of order.
    """
    if not 0 <= old_size <= tree_size(new_size):
        raise MalformedError(f"a tree does not grow from {old_size} to {new_size} leaves")
    for level in range(MAX_LEVEL + 1):
        old, new = old_size >> 8 * level, new_size >> 8 * level
        if old == new:
            return
        for index in range(old // WIDTH, -(-new // WIDTH)):
            yield Tile(level, index, min(WIDTH, new - index * WIDTH))


def grow(frontier: Frontier, leaves: Iterable[Hash]) -> dict[tuple[int, int], bytes]:
    """Append leaves. {(level, index): the hashes to append to that tile}, for every tile that changes."""
    grown: dict[tuple[int, int], bytearray] = {}
    for leaf in leaves:
        position = frontier.size
        for level, node in enumerate(frontier.append(leaf)[::8]):
            grown.setdefault((level, (position >> 8 * level) // WIDTH), bytearray()).extend(node)
    return {tile: bytes(hashes) for tile, hashes in grown.items()}


def tiles_reader(fetch: Callable[[Tile], bytes], size: int) -> HashReader:
    """Read hashes of a tree of `size` leaves from its tiles. What `fetch` gives may be wider than what it was asked
    for: a partial tile makes way for the full one. `read` raises MalformedError for a subtree outside of the tree, and
    for tiles that are too short or too long.
    """

    def read(level: int, index: int) -> Hash:
        tile_level, height = divmod(level, 8)
        first, count = index << height, 1 << height
        tile_index, offset = divmod(first, WIDTH)
        width = min(WIDTH, (size >> 8 * tile_level) - tile_index * WIDTH)
        if offset + count > width:
            raise MalformedError(f"subtree {index} of level {level} is not whole in a tree of {size} leaves")
        tile = Tile(tile_level, tile_index, width)
        data = fetch(tile)
        if not width * HASH_SIZE <= len(data) <= WIDTH * HASH_SIZE:
            raise MalformedError(f"{tile.path} has {len(data)} bytes instead of {width * HASH_SIZE}")
        return perfect_root(split_hashes(data[offset * HASH_SIZE : (offset + count) * HASH_SIZE]))

    return read


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of an entry bundle. Raises MalformedError for none or more than 256, or an entry over 65,535 bytes."""
    if not 1 <= len(entries) <= WIDTH:
        raise MalformedError(f"a bundle has 1 to {WIDTH} entries, not {len(entries)}")
    return b"".join(uint(len(entry), 2, "entry length") + entry for entry in entries)


def unpack_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. Raises MalformedError for any other number."""
    if not 1 <= width <= WIDTH:
        raise MalformedError(f"a bundle has 1 to {WIDTH} entries, not {width}")
    reader = Reader(data)
    entries = [reader.take(reader.uint(2)) for _ in range(width)]
    reader.end()
    return entries
