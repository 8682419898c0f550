"""Following a log: each checkpoint continues the ones seen before, and entries stand under one that enough signed.

The conversations that this takes, as flows; `LogFollower` and `AsyncLogFollower` run them. Hashes and entries come from
the log's tiles, and proofs are made here: settling many receipts takes few requests, and the ledger does not learn
which of the neighbouring entries was meant.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nectar_protocol.checkpoint import Checkpoint, Witnessed, open_checkpoint
from nectar_protocol.entries import Settled
from nectar_protocol.entry import parse_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.merkle import leaf_hash
from nectar_protocol.note import Note, NoteKey
from nectar_protocol.proofs import prove_inclusion, verify_consistency, verify_inclusion
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.tiles import ENTRIES, WIDTH, Tile, tiles_reader, unpack_bundle

from nectar_ledger_client import logcalls
from nectar_ledger_client.call import Flow
from nectar_ledger_client.errors import NotYetError, RefusedError, UntrustedError
from nectar_ledger_client.kept import KeptNote
from nectar_ledger_client.shelf import TileShelf

MAX_TILES: Final = 64
MAX_BUNDLES: Final = 4


class _Missing(Exception):
    def __init__(self, tile: Tile) -> None:
        self.tile = tile


@dataclass(frozen=True)
class Seen:
    """A checkpoint whose signatures were verified, as it was served."""

    note: Note
    witnessed: Witnessed

    @property
    def checkpoint(self) -> Checkpoint:
        return self.witnessed.checkpoint


class Trail:
    """What one reader knows of a log. `path` is the file of the newest checkpoint seen, which never goes back.

    Entries are believed under checkpoints that at least `quorum` of `witnesses` have cosigned. Raises FileError, and
    UntrustedError if the file holds what the log did not sign. For one thread, or one event loop.
    """

    def __init__(self, log: NoteKey, path: Path, witnesses: Collection[NoteKey] = (), quorum: int = 0) -> None:
        if not 0 <= quorum <= len(witnesses):
            raise ValueError(f"a quorum of {quorum} among {len(witnesses)} witnesses")
        self._log, self._witnesses, self._quorum = log, tuple(witnesses), quorum
        self._file = KeptNote(path)
        note = self._file.read()
        self._newest = None if note is None else Seen(note, self._open(note))
        self._believed: Checkpoint | None = None
        if self._newest is not None:
            self._believe(self._newest)
        self._tiles, self._bundles = TileShelf(MAX_TILES), TileShelf(MAX_BUNDLES)

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint seen, by how many entries it covers."""
        return None if self._newest is None else self._newest.checkpoint

    @property
    def believed(self) -> Checkpoint | None:
        """The newest one that enough have signed."""
        return self._believed

    def advance(self) -> Flow[Checkpoint]:
        """Fetch the newest checkpoint that enough have signed and check that it continues what was seen; what is newest
        then. Raises UntrustedError for a signature that is wrong, and for a fork; NotYetError if there is none.
        """
        try:
            note = yield logcalls.checkpoint(self._quorum)
        except RefusedError as error:
            raise NotYetError(f"no checkpoint is there yet that enough have signed: ask later ({error})") from error
        served = Seen(note, self._open(note))
        while True:
            newest = self._newest
            if newest is not None:
                yield from self._check_continues(newest, served)
            # Another flow may have come further meanwhile; then it is with that one that this must agree.
            if self._newest is newest:
                return self._take(served)

    def includes(self, index: int, entry: bytes) -> Flow[None]:
        """Return if `entry` stands at `index` under a checkpoint that enough have signed.

        Raises UntrustedError if it does not, NotYetError while there is no such checkpoint.
        """
        checkpoint = yield from self._covering(index)
        yield from self._check_included(index, entry, checkpoint)

    def settled(self, receipt: SignedReceipt, index: int) -> Flow[Settled]:
        """The entry at `index`, if it settles this receipt, or a later one of the same line, for good.

        Raises UntrustedError for any other entry, NotYetError while no checkpoint that enough have signed covers it.
        """
        checkpoint = yield from self._covering(index)
        entry = yield from self._entry(index, checkpoint)
        yield from self._check_included(index, entry, checkpoint)
        return check_settles(entry, receipt)

    def _open(self, note: Note) -> Witnessed:
        try:
            return open_checkpoint(note, self._log, self._witnesses)
        except ProtocolError as error:
            raise UntrustedError(
                f"the checkpoint is not one of {self._log.name} ({error}): check the log's key"
            ) from error

    def _believe(self, seen: Seen) -> None:
        size = seen.checkpoint.size
        if len(seen.witnessed.witnesses) >= self._quorum and (self._believed is None or size > self._believed.size):
            self._believed = seen.checkpoint

    def _take(self, served: Seen) -> Checkpoint:
        """Make what was checked the newest, unless it is older. In the file before anybody hears of it."""
        newest = self._newest
        if newest is None or served.checkpoint.size > newest.checkpoint.size:
            self._file.write(served.note)
            self._newest = newest = served
        self._believe(served)
        return newest.checkpoint

    def _check_continues(self, newest: Seen, served: Seen) -> Flow[None]:
        old, new = sorted((newest.checkpoint, served.checkpoint), key=lambda checkpoint: checkpoint.size)
        if old.size == 0:
            return
        try:
            proof = [] if old.size == new.size else (yield logcalls.consistency(old.size, new.size))
            verify_consistency(old.size, new.size, proof, old.root, new.root)
        except (ProtocolError, RefusedError) as error:
            raise UntrustedError(
                f"{self._log.name} signed {served.checkpoint.size} entries that are not shown to continue, or to be "
                f"continued by, the {newest.checkpoint.size} it signed before ({error}). Do not rely on this ledger, "
                f"and show others both checkpoints: {self._file.set_aside(served.note)}"
            ) from error

    def _covering(self, index: int) -> Flow[Checkpoint]:
        if self._believed is None or self._believed.size <= index:
            yield from self.advance()
        believed = self._believed
        if believed is None or believed.size <= index:
            raise NotYetError(f"no checkpoint that enough have signed covers entry {index} yet: ask again later")
        return believed

    def _check_included(self, index: int, entry: bytes, checkpoint: Checkpoint) -> Flow[None]:
        size = checkpoint.size
        try:
            while True:
                try:
                    proof = prove_inclusion(tiles_reader(self._shelved, size), index, size)
                    break
                except _Missing as missing:
                    self._tiles.put(missing.tile, (yield logcalls.tile(missing.tile)))
            verify_inclusion(leaf_hash(entry), index, size, proof, checkpoint.root)
        except ProtocolError as error:
            # Whatever of it was wrong, it is asked for anew the next time.
            self._tiles.clear()
            self._bundles.clear()
            raise UntrustedError(f"entry {index} is not what the log's checkpoint covers: {error}") from error

    def _shelved(self, tile: Tile) -> bytes:
        data = self._tiles.get(tile)
        if data is None:
            raise _Missing(tile)
        return data

    def _entry(self, index: int, checkpoint: Checkpoint) -> Flow[bytes]:
        number, offset = divmod(index, WIDTH)
        tile = Tile(ENTRIES, number, min(WIDTH, checkpoint.size - number * WIDTH))
        data = self._bundles.get(tile)
        if data is None:
            data = yield logcalls.tile(tile)
            self._bundles.put(tile, data)
        try:
            return unpack_bundle(data, tile.width)[offset]
        except ProtocolError as error:
            self._bundles.clear()
            raise UntrustedError(f"the entries around {index} cannot be read: {error}") from error


def check_settles(entry: bytes, receipt: SignedReceipt) -> Settled:
    """The entry's body, if it settles `receipt` or a later one of its line that both signed. Raises UntrustedError."""
    try:
        body = parse_entry(entry).body
        if not isinstance(body, Settled):
            raise UntrustedError("the entry settles no receipt: send it again")
        mine, found = receipt.receipt, body.receipt.receipt
        if (found.hold, found.server, found.session) != (mine.hold, mine.server, mine.session) or found.seq < mine.seq:
            raise UntrustedError("the entry settles another line, or an older receipt: send this one again")
        if found.seq == mine.seq and found != mine:
            raise UntrustedError(f"the log has another receipt with seq {mine.seq} of this line: keep both")
        if body.receipt != receipt:
            body.receipt.verify()
    except ProtocolError as error:
        raise UntrustedError(f"the entry settles no receipt that both signed ({error}): send it again") from error
    return body
