"""A log as static files, whatever its entries say."""

from collections.abc import Sequence
from pathlib import Path

from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import Frontier, leaf_hash
from nectar_protocol.tiles import ENTRIES, WIDTH, Tile, grow, pack_bundle


def write_log(entries: Sequence[bytes], origin: str, log_key: Identity, folder: Path) -> Checkpoint:
    """Its tiles, and the checkpoint over them that the key signs."""
    frontier = Frontier()
    files = {
        Tile(level, index, len(hashes) // 32): hashes
        for (level, index), hashes in grow(frontier, map(leaf_hash, entries)).items()
    }
    for start in range(0, len(entries), WIDTH):
        bundle = entries[start : start + WIDTH]
        files[Tile(ENTRIES, start // WIDTH, len(bundle))] = pack_bundle(bundle)
    for tile, content in files.items():
        (folder / tile.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / tile.path).write_bytes(content)
    checkpoint = Checkpoint(origin, frontier.size, frontier.root())
    (folder / "checkpoint").write_bytes(checkpoint.signed(log_key).pack())
    return checkpoint
