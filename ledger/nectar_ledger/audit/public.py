"""What anybody can check with a log's files alone: no database, no sealed parts, no trust in who serves them."""

from collections.abc import Collection
from itertools import chain
from pathlib import Path

from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import Note, NoteKey

from nectar_ledger.audit.folder import TileFolder
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.signatures import Signatures
from nectar_ledger.audit.tree import Known, Tree
from nectar_ledger.audit.walk import Progress, Walk, identify
from nectar_ledger.store.scan import Part
from nectar_ledger.store.schema import commands
from nectar_ledger.store.scratch import open_scratch


def verify_public(
    root: Path,
    key: NoteKey | None = None,
    witnesses: Collection[NoteKey] = (),
    signatures: bool = True,
    threads: int | None = None,
    progress: Progress = lambda entries: None,
) -> Report:
    """The log in a folder, held against its own checkpoint and its own rules.

    `key` is the log's, from elsewhere; without it the checkpoint only has to be signed by the key that the log itself
    names. Of what is private, no more is checked than that the pool covers it. Raises NotFoundError if there is no log,
    MalformedError for a checkpoint that is none.
    """
    folder, report = TileFolder(root), Report()
    note = folder.checkpoint()
    checkpoint = Checkpoint.parse(note.text)
    with (
        open_scratch([commands]) as (scratch, scratch_connection),
        Signatures(report, threads) as verifying,
    ):
        parts = folder.parts(checkpoint.size, report)
        first = next(parts, Part(0, []))
        named = identify(first, report)
        _check_checkpoint(note, key or named, witnesses, report)
        if key is not None and named not in (None, key):
            report.find("log", f"its genesis names another log's key than the one given, {named}", 0)
        tree = Tree(folder.find_tile, [Known(checkpoint.size, checkpoint.root, "checkpoint")], report)
        walk = Walk(report, tree, verifying if signatures else None, scratch, scratch_connection)
        walk.run(chain([first], parts), progress)
    return report


def _check_checkpoint(note: Note, key: NoteKey | None, witnesses: Collection[NoteKey], report: Report) -> None:
    if key is None:
        return
    try:
        report.checked["cosignatures"] += len(open_checkpoint(note, key, witnesses).witnesses)
    except ProtocolError as error:
        report.find("checkpoint", str(error))
