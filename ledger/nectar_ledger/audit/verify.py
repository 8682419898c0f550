"""A ledger against its own log: every rule, row, tile, checkpoint and signature. Reads alone, while the ledger runs."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain

import sqlalchemy as sa
from nectar_protocol.note import Note, NoteKey
from sqlalchemy.exc import DBAPIError

from nectar_ledger.audit.checkpoints import Checkpoints
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.signatures import Signatures
from nectar_ledger.audit.stored import StoredLog
from nectar_ledger.audit.tables import KEPT, Tables
from nectar_ledger.audit.tree import Tree
from nectar_ledger.audit.walk import Progress, Walk, identify
from nectar_ledger.errors import DamagedError
from nectar_ledger.store.database import Database
from nectar_ledger.store.scan import Part
from nectar_ledger.store.schema import commands
from nectar_ledger.store.scratch import open_scratch
from nectar_ledger.store.versions import check_version


def verify(
    database: Database,
    published: Note | None = None,
    witnesses: Collection[NoteKey] = (),
    signatures: bool = True,
    threads: int | None = None,
    progress: Progress = lambda entries: None,
) -> Report:
    """Everything that a database says, held against its log. `published` is the checkpoint kept outside of it.

    Raises VersionError, and DamagedError for a database that cannot be read at all.
    """
    report = Report()
    with (
        _reading(database) as connection,
        open_scratch([*KEPT, commands]) as (scratch, scratch_connection),
        Signatures(report, threads) as verifying,
    ):
        check_version(connection)
        log = StoredLog(connection, report)
        parts = log.parts()
        first = next(parts, Part(0, []))
        key = identify(first, report)
        checkpoints = Checkpoints(connection, published, key if signatures else None, report)
        tree = Tree(log.find_tile, checkpoints.known(), report)
        tables = Tables(connection, scratch, scratch_connection, report)
        walk = Walk(report, tree, verifying if signatures else None, scratch, scratch_connection, tables)
        walk.run(chain([first], parts), progress)
        log.check_rest(tree.frontier)
        checkpoints.check_cosignatures(witnesses if signatures else ())
    return report


@contextmanager
def _reading(database: Database) -> Iterator[sa.Connection]:
    """One state of the database throughout."""
    try:
        with database.reading.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise DamagedError(f"the database cannot be read ({error.orig}): restore it from a backup") from error
