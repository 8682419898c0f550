"""A database for as long as an audit takes: what memory need not hold, in a file that nobody keeps."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import metadata
from nectar_ledger.store.sqlite import Sqlite


@contextmanager
def open_scratch(tables: Iterable[sa.Table]) -> Iterator[tuple[Database, sa.Connection]]:
    """These tables, empty, and the one connection that they can be written and read by. Nothing is ever committed."""
    with tempfile.TemporaryDirectory(prefix="nectar-audit-") as folder:
        database = Sqlite(sa.make_url(f"sqlite:///{Path(folder) / 'scratch.db'}"))
        try:
            with database.writing.connect() as connection, connection.begin() as transaction:
                metadata.create_all(connection, list(tables))
                yield database, connection
                transaction.rollback()
        finally:
            database.writing.dispose()
