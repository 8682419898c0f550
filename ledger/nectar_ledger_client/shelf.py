"""Tiles of a log that were fetched, the newest used ones of them."""

from collections import OrderedDict

from nectar_protocol.tiles import Tile


class TileShelf:
    """At most `most` tiles. A full tile never changes, and a partial one has its width in its name."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tiles: OrderedDict[Tile, bytes] = OrderedDict()

    def get(self, tile: Tile) -> bytes | None:
        data = self._tiles.get(tile)
        if data is not None:
            self._tiles.move_to_end(tile)
        return data

    def put(self, tile: Tile, data: bytes) -> None:
        self._tiles[tile] = data
        self._tiles.move_to_end(tile)
        while len(self._tiles) > self._most:
            self._tiles.popitem(last=False)

    def clear(self) -> None:
        self._tiles.clear()
