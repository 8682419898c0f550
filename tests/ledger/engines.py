"""The engines under test: SQLite in a folder, PostgreSQL of our own or the one of NECTAR_TEST_POSTGRES_URL."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.versions import migrate

from benchmarks import postgres
from benchmarks.postgres import PostgresError
from tests.ledger.till import metadata


class PostgresServer(postgres.PostgresServer):
    """Skips the test, with the reason, where PostgreSQL cannot run or must not be stopped."""

    def __init__(self, folder: Path) -> None:
        try:
            super().__init__(folder)
        except PostgresError as error:
            pytest.skip(str(error))
        self._database = f"nectar_test_{os.getpid()}"
        self._backup = f"{self._database}_backup"
        self.run(f"CREATE DATABASE {self._database}")

    def empty(self) -> str:
        """The URL of a database without tables: always the same one, since making and dropping them takes a while."""
        self.run("DROP SCHEMA public CASCADE", "CREATE SCHEMA public", database=self._database)
        return self.url(self._database)

    def back_up(self) -> str:
        """The URL of a copy of it, to which nobody may be connected."""
        self.run(f"DROP DATABASE IF EXISTS {self._backup}", f"CREATE DATABASE {self._backup} TEMPLATE {self._database}")
        return self.url(self._backup)

    def stop_immediately(self) -> None:
        try:
            super().stop_immediately()
        except PostgresError as error:
            pytest.skip(str(error))

    def drop(self) -> None:
        self.run(f"DROP DATABASE IF EXISTS {self._backup}", f"DROP DATABASE {self._database}")


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
