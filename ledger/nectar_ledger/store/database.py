"""A database that holds a ledger, whichever engine it is.

Every transaction is a `with connection.begin():`. A cursor taken past SQLAlchemy begins none, and the commit after it
does nothing; so only `postgres` takes one, and only in a transaction.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from nectar_ledger.core.machine import Row
from nectar_ledger.errors import LockedError

POLL_S = 0.05
# What writing a row raises that its table does not take: SQLAlchemy's own, and psycopg's out of a COPY.
BROKEN_CONSTRAINT = (IntegrityError, psycopg.IntegrityError)


class Database(Protocol):
    """`writing` begins transactions that write, `reading` ones that see one state throughout and wait for nobody."""

    @property
    def writing(self) -> sa.Engine: ...

    @property
    def reading(self) -> sa.Engine: ...

    def hold(self, patience_s: float = 5) -> AbstractContextManager[sa.Connection]:
        """The one connection that may write to the log; its lock ends with it. Raises LockedError, StoreError."""

    def add(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows."""

    def put(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows, over those with the same primary key. No two of `rows` may have the same."""


def wait_for_lock(try_lock: Callable[[], bool], patience_s: float) -> None:
    """A killed process's lock may outlive it for a moment. Raises LockedError."""
    deadline_s = time.monotonic() + patience_s
    while not try_lock():
        if time.monotonic() >= deadline_s:
            raise LockedError("another process writes to this ledger's database; stop it first, there can only be one")
        time.sleep(POLL_S)


def insert_over(table: sa.Table, quote: Callable[[str], str], source: str) -> str:
    """INSERT of `source` (VALUES or SELECT) that overwrites the row with the same primary key."""
    key = ", ".join(quote(column.name) for column in table.primary_key)
    others = [quote(column.name) for column in table.columns if not column.primary_key]
    action = "UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in others) if others else "NOTHING"
    return f"{insert(table, quote, source)} ON CONFLICT ({key}) DO {action}"


def insert(table: sa.Table, quote: Callable[[str], str], source: str) -> str:
    names = ", ".join(quote(column.name) for column in table.columns)
    return f"INSERT INTO {quote(table.name)} ({names}) {source}"
