"""The engines that a ledger runs on, by the URL of its database."""

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from nectar_ledger.errors import StoreError
from nectar_ledger.store.database import Database
from nectar_ledger.store.postgres import Postgres
from nectar_ledger.store.sqlite import Sqlite


def open_database(url: str) -> Database:
    """`sqlite:///FILE` or `postgresql://…`; connects later. Raises StoreError."""
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise StoreError("that is no database URL: write sqlite:///FILE or postgresql://USER@HOST/DATABASE") from error
    match parsed.get_backend_name():
        case "sqlite":
            return Sqlite(parsed)
        case "postgresql":
            return Postgres(parsed)
    raise StoreError(f"a ledger runs on SQLite or PostgreSQL, not on {parsed.get_backend_name()!r}")
