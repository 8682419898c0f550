"""A log as static files, as c2sp.org/tlog-tiles lays them out, for any web server and for who audits without one."""

import os
from pathlib import Path

from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import Note
from nectar_protocol.tiles import ENTRIES, WIDTH, Tile, new_tiles

from nectar_ledger.errors import ForkError, StoreError
from nectar_ledger.log.reader import LogReader

CHECKPOINT = "checkpoint"


def export_tiles(log: LogReader, note: Note, folder: Path) -> int:
    """Write the log up to the checkpoint `note`, which is one of ours; how many files are new.

    The folder may have an earlier export, of which full tiles stay as they are. Raises ForkError if what it has is of
    another log, StoreError if it cannot be written.
    """
    checkpoint = Checkpoint.parse(note.text)
    _check_continues(log, folder / CHECKPOINT, checkpoint)
    written = 0
    for hashes in new_tiles(0, checkpoint.size):
        bundle = [Tile(ENTRIES, hashes.index, hashes.width)] if hashes.level == 0 else []
        for tile in (hashes, *bundle):
            path = folder / tile.path
            if tile.width < WIDTH or not path.is_file():
                _write(path, log.tile(tile))
                written += 1
    _write(folder / CHECKPOINT, note.pack())
    return written + 1


def _check_continues(log: LogReader, path: Path, checkpoint: Checkpoint) -> None:
    try:
        known = Checkpoint.parse(Note.unpack(path.read_bytes()).text)
    except FileNotFoundError:
        return
    except (OSError, ProtocolError) as error:
        raise StoreError(f"{path} cannot be read ({error}): choose another folder") from error
    continues = known.origin == checkpoint.origin and known.size <= checkpoint.size
    if not continues or log.root(known.size) != known.root:
        raise ForkError(f"{path} is of another log, or of a longer one: choose another folder")


def _write(path: Path, data: bytes) -> None:
    """As a whole: whoever reads meanwhile sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
