"""PostgreSQL through psycopg 3: COPY for rows that are only added, an advisory lock for the sequencer.

The lock belongs to a connection, so a pooler that shares connections between transactions must not stand between.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from nectar_ledger.core.machine import Row
from nectar_ledger.errors import StoreError
from nectar_ledger.store.database import insert_over, wait_for_lock

# Of this database: any number does, as long as all versions of Nectar take the same.
LOCK = int.from_bytes(b"nectar\0\0", "big")
# Without either, PostgreSQL acknowledges commits that a power failure undoes.
DURABLE = ("fsync", "synchronous_commit")


class Postgres:
    def __init__(self, url: sa.URL) -> None:
        url = url.set(drivername="postgresql+psycopg")
        self.writing = sa.create_engine(url)
        self.reading = self.writing.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # The lock lasts as long as its connection, which must really end when it is closed.
        self._holding = sa.create_engine(url, poolclass=sa.NullPool)
        self._statements = cache(lambda table: _Statements.of(table, self.writing.dialect))

    @contextmanager
    def hold(self, patience_s: float = 5) -> Iterator[sa.Connection]:
        try:
            connection = self._holding.connect()
        except OperationalError as error:
            raise StoreError(f"cannot connect to PostgreSQL: {error.orig}") from error
        with connection:
            wait_for_lock(lambda: _try_advisory_lock(connection), patience_s)
            with connection.begin():
                for name in DURABLE:
                    if connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "off":
                        raise StoreError(
                            f"PostgreSQL runs with {name} = off and may lose what it confirmed: turn it on"
                        )
            yield connection

    def add(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        statements = self._statements(table)
        with _cursor(connection) as cursor, cursor.copy(statements.copy) as copy:
            copy.set_types(statements.types)
            for row in rows:
                copy.write_row(row)

    def put(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        statements = self._statements(table)
        columns = zip(statements.types, zip(*rows, strict=True), strict=True)
        connection.exec_driver_sql(statements.put, tuple(_array(kind, values) for kind, values in columns))


@dataclass(frozen=True)
class _Statements:
    """How a table is written; made once for each."""

    types: list[str]
    copy: str
    put: str

    @classmethod
    def of(cls, table: sa.Table, dialect: sa.Dialect) -> "_Statements":
        quote = dialect.identifier_preparer.quote
        types = [column.type.compile(dialect).lower() for column in table.columns]
        names = ", ".join(quote(column.name) for column in table.columns)
        arrays = ", ".join(f"%s::{name}[]" for name in types)
        return cls(
            types,
            f"COPY {quote(table.name)} ({names}) FROM STDIN (FORMAT BINARY)",
            insert_over(table, quote, f"SELECT * FROM unnest({arrays})"),
        )


def _array(kind: str, values: Sequence[object]) -> str:
    """An array as PostgreSQL reads it. The driver's own way to write one takes ten times as long."""
    if kind in ("bytea", "text"):
        return f"{{{','.join(map(_quoted, values))}}}"
    return f"{{{','.join(map(str, values))}}}".replace("None", "NULL")


def _quoted(value: object) -> str:
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    if value is None:
        return "NULL"
    text = str(value).replace("\\", r"\\").replace('"', r"\"")
    return f'"{text}"'


def _try_advisory_lock(connection: sa.Connection) -> bool:
    with connection.begin():
        return bool(connection.execute(sa.select(sa.func.pg_try_advisory_lock(LOCK))).scalar_one())


def _cursor(connection: sa.Connection) -> psycopg.Cursor[Any]:
    """The driver's own cursor, which COPY needs. Raises StoreError where nothing would ever be committed."""
    driver = connection.connection.driver_connection
    if not connection.in_transaction() or not isinstance(driver, psycopg.Connection):
        raise StoreError("rows were to be copied outside of a transaction: write within `with connection.begin():`")
    return driver.cursor(binary=True)
