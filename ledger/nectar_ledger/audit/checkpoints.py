"""The checkpoints that a ledger has signed, and who cosigned them."""

import heapq
from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa
from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import Note, NoteKey, NoteSignature

from nectar_ledger.audit.report import Report
from nectar_ledger.audit.tree import Known
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.scan import find_checkpoint
from nectar_ledger.store.schema import checkpoints, cosignatures


class Checkpoints:
    """Those in a database, and the one that was published last. `key` is the log's; None leaves them unverified."""

    def __init__(self, connection: sa.Connection, published: Note | None, key: NoteKey | None, report: Report) -> None:
        self._connection, self._published, self._key, self._report = connection, published, key, report

    def known(self) -> Iterator[Known]:
        """In the order of their sizes. What is wrong with one by itself is reported, and it is left out."""
        outside = [] if self._published is None else self._read(self._published, "published")
        return heapq.merge(self._stored(), outside, key=lambda known: known.size)

    def check_cosignatures(self, witnesses: Collection[NoteKey]) -> None:
        """That each is a signature line; of those of `witnesses` also that it is one over its checkpoint."""
        keys = {(key.name, key.key_id): key for key in witnesses}
        rows: Iterator[Any] = read_rows(self._connection, cosignatures)
        for size, name, line in rows:
            self._report.checked["cosignatures"] += 1
            try:
                signature = NoteSignature.parse(line.removesuffix("\n"))
                key = keys.get((signature.name, signature.key_id))
                if signature.name != name:
                    self._report.find(f"cosignatures {size}/{name}", f"the line is {signature.name!r}'s")
                elif key is not None:
                    signature.verify(key, self._text(size))
            except ProtocolError as error:
                self._report.find(f"cosignatures {size}/{name}", str(error))

    def _stored(self) -> Iterator[Known]:
        rows: Iterator[Any] = read_rows(self._connection, checkpoints)
        for size, data, _ in rows:
            place = f"checkpoints {size}"
            try:
                note = Note.unpack(data)
            except ProtocolError as error:
                self._report.find(place, str(error))
                continue
            for known in self._read(note, place):
                if known.size == size:
                    yield known
                else:
                    self._report.find(place, f"the checkpoint there is over {known.size} entries")

    def _read(self, note: Note, place: str) -> list[Known]:
        """What a note says, if it is a checkpoint of this log."""
        try:
            checkpoint = (
                Checkpoint.parse(note.text) if self._key is None else open_checkpoint(note, self._key).checkpoint
            )
        except ProtocolError as error:
            self._report.find(place, str(error))
            return []
        return [Known(checkpoint.size, checkpoint.root, place)]

    def _text(self, size: int) -> str:
        """Raises ProtocolError."""
        data = find_checkpoint(self._connection, size)
        return Note.unpack(b"" if data is None else data).text
