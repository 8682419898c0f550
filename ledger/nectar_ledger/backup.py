"""Copies of a ledger's database: made while it runs, and put back after they have been verified.

A backup is an SQLite file, whatever the ledger runs on. It has neither keys nor evidence, and not what was published
last: so that a ledger which is restored from an older one notices, and does not sign.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nectar_protocol.checkpoint import Checkpoint

from nectar_ledger.audit.report import Report
from nectar_ledger.audit.verify import verify
from nectar_ledger.audit.walk import Progress
from nectar_ledger.errors import DamagedError, HomeError
from nectar_ledger.home import Home
from nectar_ledger.store.copying import copy_file, copy_rows
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.sqlite import Sqlite
from nectar_ledger.store.versions import migrate


def back_up(home: Home, path: Path) -> None:
    """Raises HomeError if the file exists, StoreError."""
    if path.exists():
        raise HomeError(f"{path} exists and is never overwritten; name another file")
    with _draft_of(path, ".new") as draft, _opened(home.database_url) as database:
        if isinstance(database, Sqlite):
            copy_file(database.path, draft)
        else:
            with _draft_of(path, ".rows") as rows:
                with _opened(_url_of(rows)) as copy:
                    copy_rows(database, copy)
                copy_file(rows, draft)
        os.replace(draft, path)


def restore(home: Home, path: Path, progress: Progress = lambda entries: None) -> tuple[Report, int]:
    """Verify a backup, and make it the ledger's database, which must not be there. What the verification looked at,
    and the size of the log that was published last: if it is larger, the ledger will not sign.

    Raises HomeError if there is a database, DamagedError for a backup in which something is wrong, StoreError.
    """
    target = home.database()
    if isinstance(target, Sqlite):
        for there in filter(Path.exists, _with_beside(target.path)):
            raise HomeError(f"{there} is there, and is never overwritten; move it away first")
    note = home.published.read()
    with _draft_of(home.default_database, ".new") as draft:
        copy_file(path, draft)
        with _opened(_url_of(draft)) as copy:
            migrate(copy)
            report = verify(copy, progress=progress)
            if report.found:
                raise DamagedError(f"{path} is not restored: {report.found} things are wrong, as {report.findings[0]}")
            if not isinstance(target, Sqlite):
                copy_rows(copy, target)
        if isinstance(target, Sqlite):
            os.replace(draft, target.path)
    return report, Checkpoint.parse(note.text).size if note else 0


@contextmanager
def _draft_of(path: Path, ending: str) -> Iterator[Path]:
    """An empty file for its owner alone, which is gone afterwards unless it has been moved."""
    draft = path.with_name(path.name + ending)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    except OSError as error:
        raise HomeError(f"cannot write {draft}: {error.strerror}") from error
    try:
        yield draft
    finally:
        for left in (*_with_beside(draft), draft.with_name(draft.name + ".lock")):
            left.unlink(missing_ok=True)


def _with_beside(path: Path) -> list[Path]:
    """A database of SQLite, and what may hold a part of it."""
    return [path.with_name(path.name + ending) for ending in ("", "-wal", "-shm")]


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        database.writing.dispose()


def _url_of(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"
