"""A whole database into another one, as it is at one moment, while others write to it."""

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path

from nectar_ledger.errors import StoreError
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_head, read_rows
from nectar_ledger.store.schema import log_head, metadata
from nectar_ledger.store.versions import check_version, migrate

ROWS_AT_ONCE = 1000


def copy_file(source: Path, target: Path) -> None:
    """Of SQLite to SQLite, page by page, into one file with nothing beside it.

    Raises StoreError; what `target` then holds is of no use.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as reading,
            closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"cannot copy the database {source} to {target}: {error}") from error


def copy_rows(source: Database, target: Database) -> None:
    """Between any two engines, row by row, all or nothing.

    Raises StoreError if there is a log in `target`, VersionError, LockedError.
    """
    migrate(target, patience_s=0)
    with source.reading.begin() as reading, target.hold(0) as connection, connection.begin():
        check_version(reading)
        if read_head(connection)[0].size:
            raise StoreError("there is a ledger in that database, and it is never overwritten: name an empty one")
        for table in metadata.sorted_tables:
            write = target.put if table is log_head else target.add
            rows = read_rows(reading, table)
            while some := list(islice(rows, ROWS_AT_ONCE)):
                write(connection, table, some)
