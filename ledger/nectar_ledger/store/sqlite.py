"""SQLite in a file, for one machine: WAL, every commit synced, the sequencer's lock in a file beside it."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from nectar_ledger.core.machine import Row
from nectar_ledger.errors import StoreError
from nectar_ledger.store.database import insert, insert_over, wait_for_lock

# `fullfsync` is for macOS, whose fsync leaves the data in the drive.
PRAGMAS = ("synchronous = FULL", "fullfsync = ON", "busy_timeout = 5000", "foreign_keys = ON", "cache_size = -65536")
READING = "nectar_reading"
ROWS_AT_ONCE = 50


class Sqlite:
    """Raises StoreError for a database that is not in a file."""

    def __init__(self, url: sa.URL) -> None:
        if url.database in (None, "", ":memory:"):
            raise StoreError("a ledger in memory would be lost with its process: give a file, sqlite:///FILE")
        self.path = Path(str(url.database))
        self.writing = sa.create_engine(url)
        self.reading = self.writing.execution_options(**{READING: True})
        quote = self.writing.dialect.identifier_preparer.quote
        # Made once for each table and number of rows.
        self._insert = cache(lambda table, count: insert(table, quote, _values(table, count)))
        self._insert_over = cache(lambda table, count: insert_over(table, quote, _values(table, count)))
        sa.event.listen(self.writing, "connect", _configure)
        sa.event.listen(self.writing, "begin", _begin)

    @contextmanager
    def hold(self, patience_s: float = 5) -> Iterator[sa.Connection]:
        try:
            descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"cannot write beside the database {self.path}: {error.strerror}") from error
        try:
            wait_for_lock(lambda: _try_flock(descriptor), patience_s)
            with self.writing.connect() as connection:
                yield connection
        finally:
            os.close(descriptor)

    def add(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        _write(connection, lambda count: self._insert(table, count), rows)

    def put(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        _write(connection, lambda count: self._insert_over(table, count), rows)


def _write(connection: sa.Connection, statement: Callable[[int], str], rows: Sequence[Row]) -> None:
    """`statement` writes so many rows. A statement for many takes two thirds of the time of as many for one."""
    whole = len(rows) - len(rows) % ROWS_AT_ONCE
    if whole:
        many = [tuple(chain(*rows[start : start + ROWS_AT_ONCE])) for start in range(0, whole, ROWS_AT_ONCE)]
        connection.exec_driver_sql(statement(ROWS_AT_ONCE), many)
    if whole < len(rows):
        connection.exec_driver_sql(statement(1), list(rows[whole:]))


def _values(table: sa.Table, count: int) -> str:
    row = f"({', '.join('?' * len(table.columns))})"
    return f"VALUES {', '.join([row] * count)}"


def _configure(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    # The driver must not begin by itself: `_begin` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    if cursor.fetchone() != ("wal",):
        raise StoreError("SQLite cannot keep a write-ahead log here: put the database on a local disk")
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # IMMEDIATE: whoever will write takes the write lock now, and does not fail for it half way.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READING) else "BEGIN IMMEDIATE")


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
