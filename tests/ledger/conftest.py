"""A ledger's database on each engine."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from nectar_ledger.store.database import Database

from tests.ledger.engines import Place, PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    # Not in pytest's own folder: as root the server is another user, whom another run of pytest would lock out there.
    with tempfile.TemporaryDirectory(prefix="nectar-postgres-") as folder:
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.drop()
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        path, backup = tmp_path / "ledger.db", tmp_path / "backup.db"
        place = Place(f"sqlite:///{path}", lambda: _copy_sqlite(path, backup))
        yield place
        place.close()
        return
    server: PostgresServer = request.getfixturevalue("postgres")

    def back_up() -> str:
        place.close()
        return server.back_up()

    place = Place(server.empty(), back_up)
    yield place
    place.close()


@pytest.fixture
def database(place: Place) -> Database:
    return place.create()


def _copy_sqlite(path: Path, backup: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    return f"sqlite:///{backup}"
