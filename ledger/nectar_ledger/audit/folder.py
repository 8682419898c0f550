"""A log as static files, as c2sp.org/tlog-tiles lays them out: in a folder, as a web server has them."""

from collections.abc import Iterator
from pathlib import Path

from nectar_protocol.errors import ProtocolError
from nectar_protocol.merkle import HASH_SIZE
from nectar_protocol.note import MAX_BYTES, Note
from nectar_protocol.tiles import ENTRIES, MAX_ENTRY_BYTES, WIDTH, Tile, unpack_bundle

from nectar_ledger.audit.report import Report
from nectar_ledger.errors import NotFoundError
from nectar_ledger.store.scan import PART_ENTRIES, Part

MAX_BUNDLE = WIDTH * (2 + MAX_ENTRY_BYTES)


class TileFolder:
    """Read alone. Where the log has grown since, a full tile stands for a partial one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def checkpoint(self) -> Note:
        """Not verified. Raises NotFoundError if there is none, MalformedError."""
        data = self._read("checkpoint", MAX_BYTES)
        if data is None:
            raise NotFoundError(
                f"there is no log in {self.root}; name the folder that has `checkpoint` and `tile` in it"
            )
        return Note.unpack(data)

    def find_tile(self, tile: Tile) -> bytes | None:
        """The tile's hashes; None if there is no such file."""
        data = self._read(tile.path, WIDTH * HASH_SIZE)
        if data is not None or tile.width == WIDTH:
            return data
        full = self._read(Tile(tile.level, tile.index).path, WIDTH * HASH_SIZE)
        return None if full is None else full[: tile.width * HASH_SIZE]

    def parts(self, size: int, report: Report) -> Iterator[Part]:
        """The log's first `size` entries, or those before the first bundle that is missing or wrong: it is reported."""
        for start in range(0, size, PART_ENTRIES):
            entries: list[bytes] = []
            for index in range(start // WIDTH, -(-min(start + PART_ENTRIES, size) // WIDTH)):
                bundle = Tile(ENTRIES, index, min(WIDTH, size - index * WIDTH))
                try:
                    entries += self._entries(bundle)
                except (ProtocolError, NotFoundError) as error:
                    report.find(bundle.path, str(error), index * WIDTH)
                    if entries:
                        yield Part(start, entries)
                    return
            yield Part(start, entries)

    def _entries(self, bundle: Tile) -> list[bytes]:
        data = self._read(bundle.path, MAX_BUNDLE)
        if data is not None:
            return unpack_bundle(data, bundle.width)
        full = self._read(Tile(ENTRIES, bundle.index).path, MAX_BUNDLE) if bundle.width < WIDTH else None
        if full is None:
            raise NotFoundError("the bundle of entries is missing")
        return unpack_bundle(full, WIDTH)[: bundle.width]

    def _read(self, path: str, limit: int) -> bytes | None:
        """At most one byte more than `limit`, which whoever parses it will not take. Raises NotFoundError."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotFoundError(f"cannot read {self.root / path}: {error.strerror}") from error
