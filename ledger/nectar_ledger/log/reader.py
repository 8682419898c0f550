"""The log as it is served: tiles, bundles of entries, proofs. All of it is durable; what is signed is for `signer`."""

from functools import cache

from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.logproof import LogProof
from nectar_protocol.merkle import Hash
from nectar_protocol.note import Note
from nectar_protocol.proofs import HashReader, prove_consistency, prove_inclusion, subtree_root
from nectar_protocol.tiles import ENTRIES, WIDTH, Tile, pack_bundle, tiles_reader
from sqlalchemy import Connection

from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_entries, read_head, read_tile


class LogReader:
    """For any number of threads. What the log has not grown to raises NotFoundError, and what no log has (sizes out of
    order, an entry beyond the size) MalformedError.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def size(self) -> int:
        with self._database.reading.begin() as connection:
            return read_head(connection)[0].size

    def entry(self, index: int) -> bytes:
        with self._database.reading.begin() as connection:
            return read_entries(connection, index, index + 1)[0]

    def tile(self, tile: Tile) -> bytes:
        """The tile as served: hashes, or a bundle of entries. A partial one is the beginning of a wider one."""
        with self._database.reading.begin() as connection:
            if tile.level == ENTRIES:
                start = tile.index * WIDTH
                return pack_bundle(read_entries(connection, start, start + tile.width))
            return read_tile(connection, tile)

    def root(self, size: int) -> Hash:
        """Of the first `size` entries."""
        with self._database.reading.begin() as connection:
            return subtree_root(_hashes(connection, size), 0, size)

    def inclusion(self, index: int, size: int) -> list[Hash]:
        """That entry `index` is among the first `size`."""
        with self._database.reading.begin() as connection:
            return prove_inclusion(_hashes(connection, size), index, size)

    def consistency(self, old_size: int, new_size: int) -> list[Hash]:
        """That the first `new_size` entries begin with the first `old_size`."""
        with self._database.reading.begin() as connection:
            return prove_consistency(_hashes(connection, new_size), old_size, new_size)

    def proof(self, index: int, checkpoint: Note) -> LogProof:
        """A file that proves entry `index` under `checkpoint`, which is one of ours."""
        size = Checkpoint.parse(checkpoint.text).size
        return LogProof(index, tuple(self.inclusion(index, size)), checkpoint)


def _hashes(connection: Connection, size: int) -> HashReader:
    return tiles_reader(cache(lambda tile: read_tile(connection, tile)), size)
