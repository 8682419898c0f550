"""What the log serves verifies with the protocol's own functions, at every size it ever had."""

from collections.abc import Iterator

import pytest
from nectar_ledger.errors import NotFoundError
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.database import Database
from nectar_ledger.store.sequencer import Sequencer
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import Hash, leaf_hash, tree_root
from nectar_protocol.note import Kind, NoteKey
from nectar_protocol.proofs import verify_consistency, verify_inclusion
from nectar_protocol.tiles import ENTRIES, Tile, new_tiles, unpack_bundle

from tests.ledger.till import TABLES, Till, Total

# Two full tiles and a partial one; the groups end at odd places.
BATCHES = (1, 2, 250, 3, 256, 100)
SIZE = sum(BATCHES)


@pytest.fixture
def log(database: Database) -> Iterator[LogReader]:
    sequencer, seq = Sequencer(database, TABLES, Till), 0
    for count in BATCHES:
        batch = [Total(line % 7, seq + line, seq + line) for line in range(1, count + 1)]
        sequencer.submit(batch).result(30)
        seq += count
    yield LogReader(database)
    sequencer.close()


def leaves(log: LogReader) -> list[Hash]:
    """From the bundles of entries that the log serves."""
    bundles = [Tile(ENTRIES, tile.index, tile.width) for tile in new_tiles(0, log.size()) if tile.level == 0]
    return [leaf_hash(entry) for bundle in bundles for entry in unpack_bundle(log.tile(bundle), bundle.width)]


def test_proofs_verify_at_every_size(log: LogReader) -> None:
    hashes = leaves(log)
    assert len(hashes) == SIZE
    sizes = (1, 2, 3, 255, 256, 257, 511, 512, 600, SIZE)
    roots = {size: tree_root(hashes[:size]) for size in sizes}
    for size in sizes:
        assert log.root(size) == roots[size]
        for index in {0, size // 2, size - 1}:
            verify_inclusion(hashes[index], index, size, log.inclusion(index, size), roots[size])
        for old in sizes[: sizes.index(size) + 1]:
            verify_consistency(old, size, log.consistency(old, size), roots[old], roots[size])


def test_tiles_hold_the_hashes_of_the_entries(log: LogReader) -> None:
    hashes = leaves(log)
    for tile in new_tiles(0, SIZE):
        if tile.level == 0:
            first = tile.index * 256
            assert log.tile(tile) == b"".join(hashes[first : first + tile.width])


def test_a_partial_tile_is_the_beginning_of_the_whole_one(log: LogReader) -> None:
    whole = log.tile(Tile(0, 1))
    assert log.tile(Tile(0, 1, 3)) == whole[:96]
    assert log.tile(Tile(1, 0, 1)) == log.root(256)
    assert unpack_bundle(log.tile(Tile(ENTRIES, 0, 2)), 2) == [log.entry(0), log.entry(1)]


@pytest.mark.parametrize("tile", [Tile(0, 2), Tile(0, 3, 1), Tile(1, 0, 3), Tile(2, 0, 1), Tile(ENTRIES, 2)])
def test_what_the_log_has_not_grown_to_is_not_found(log: LogReader, tile: Tile) -> None:
    with pytest.raises(NotFoundError):
        log.tile(tile)
    with pytest.raises(NotFoundError):
        log.entry(SIZE)
    with pytest.raises(NotFoundError):
        log.root(SIZE + 1)
    with pytest.raises(MalformedError):
        log.inclusion(SIZE, SIZE)
    with pytest.raises(MalformedError):
        log.consistency(3, 2)


def test_a_proof_of_an_entry_stands_alone(log: LogReader) -> None:
    identity = Identity.from_seed(bytes(32))
    note = Checkpoint("ledger.example/test", 300, log.root(300)).signed(identity)
    key = NoteKey("ledger.example/test", Kind.NOTE, identity.public)
    assert log.proof(123, note).verify(log.entry(123), key).checkpoint.size == 300
