"""A town's ledger for auditors: made once, copied for each test that spoils it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.versions import migrate

from tests.ledger.audit_ground import Lived
from tests.ledger.forge import live_a_day, read_drafts


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp("town")
    database = open_database(f"sqlite:///{folder / 'ledger.db'}")
    migrate(database)
    town, note = live_a_day(database, folder)
    drafts = read_drafts(database)
    database.writing.dispose()
    return Lived(town, folder / "ledger.db", note, drafts)


@pytest.fixture
def open_here(tmp_path: Path) -> Iterator[Callable[[Path | None], Database]]:
    """Opens a copy of a database's file, or an empty database."""
    opened: list[Database] = []

    def open_copy(original: Path | None) -> Database:
        path = tmp_path / f"{len(opened)}.db"
        if original is not None:
            shutil.copyfile(original, path)
        database = open_database(f"sqlite:///{path}")
        if original is None:
            migrate(database)
        opened.append(database)
        return database

    yield open_copy
    for database in opened:
        database.writing.dispose()


@pytest.fixture
def spoiled(lived: Lived, open_here: Callable[[Path | None], Database]) -> Database:
    """A copy that the test may change as it likes."""
    return open_here(lived.path)


@pytest.fixture
def empty(open_here: Callable[[Path | None], Database]) -> Database:
    return open_here(None)
