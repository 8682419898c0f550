"""A backup is the ledger as it was, comes back only if it verifies, and never lets an old log be signed again."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from nectar_ledger.audit.verify import verify
from nectar_ledger.backup import back_up, restore
from nectar_ledger.core.orders import Resume
from nectar_ledger.errors import DamagedError, ForkError, HomeError, StoreError
from nectar_ledger.home import Home
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.schema import metadata
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.note import Note
from nectar_protocol.policy import EXAMPLE

from tests.ledger.engines import Place
from tests.ledger.world import ORIGIN


def create(place: Place, tmp_path: Path) -> Home:
    return Home.create(tmp_path / "ledger", ORIGIN, EXAMPLE, place.url)


def lost(home: Home, place: Place, tmp_path: Path) -> Home:
    """The same ledger without its database."""
    if place.url.startswith("sqlite"):
        return Home(home.root, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    database = place.open()
    with database.writing.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(sa.delete(table))
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    return home


def live_on(home: Home) -> Note:
    """Two entries more, under a new checkpoint."""
    database = home.database()
    home.record(database, [Resume()])
    note = home.signer(database).sign()
    database.writing.dispose()
    return note


def dump(database: Database) -> dict[str, list[tuple[object, ...]]]:
    with database.reading.begin() as connection:
        found = {table.name: list(read_rows(connection, table)) for table in metadata.sorted_tables}
    database.writing.dispose()
    return found


def test_what_comes_back_is_what_was_there(place: Place, tmp_path: Path) -> None:
    home = create(place, tmp_path)
    note = live_on(home)
    before = dump(home.database())
    back_up(home, tmp_path / "backup")
    assert {path.name for path in tmp_path.glob("backup*")} == {"backup"}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    again = lost(home, place, tmp_path)
    report, published = restore(again, tmp_path / "backup")
    assert report.size == published == Checkpoint.parse(note.text).size == 3
    assert dump(again.database()) == before
    live_on(again)


def test_a_restored_older_ledger_signs_nothing(place: Place, tmp_path: Path) -> None:
    home = create(place, tmp_path)
    back_up(home, tmp_path / "older")
    live_on(home)
    again = lost(home, place, tmp_path)
    report, published = restore(again, tmp_path / "older")
    assert (report.size, published) == (1, 3)
    database = again.database()
    with pytest.raises(ForkError, match="Nothing is signed"):
        again.signer(database)
    with pytest.raises(ForkError, match="Nothing is signed"):
        again.record(database, [Resume(), Resume(), Resume()])
    sequencer = again.sequencer(database)
    sequencer.submit([Resume()] * 5).result()
    sequencer.close()
    with pytest.raises(ForkError, match="not those of the published checkpoint"):
        again.signer(database)
    database.writing.dispose()


def test_a_backup_is_one_state_of_a_ledger_that_runs(tmp_path: Path) -> None:
    """Taken again and again while entries come."""
    home = Home.create(tmp_path / "ledger", ORIGIN, EXAMPLE)
    database = home.database()
    sequencer = home.sequencer(database)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            sequencer.submit([Resume()]).result()

    writing = threading.Thread(target=write)
    writing.start()
    for number in range(5):
        back_up(home, tmp_path / f"{number}.db")
    stop.set()
    writing.join()
    sequencer.close()
    database.writing.dispose()
    sizes = []
    for number in range(5):
        copy = open_database(f"sqlite:///{tmp_path / f'{number}.db'}")
        report = verify(copy)
        copy.writing.dispose()
        assert report.findings == []
        sizes.append(report.size)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    "damage",
    ["UPDATE accounts SET credits = 1, debits = 1", "DELETE FROM keys", "UPDATE log_entries SET entry = x'00'"],
)
def test_a_damaged_backup_is_not_restored(tmp_path: Path, damage: str) -> None:
    home = Home.create(tmp_path / "ledger", ORIGIN, EXAMPLE)
    back_up(home, tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "backup")) as connection:
        connection.execute(damage)
        connection.commit()
    home.default_database.rename(tmp_path / "moved")
    with pytest.raises(DamagedError, match="is not restored"):
        restore(home, tmp_path / "backup")
    assert sorted(path.name for path in home.root.iterdir() if "ledger.db" in path.name) == ["ledger.db.lock"]


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "ledger", ORIGIN, EXAMPLE)
    home.default_database.rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="cannot copy"):
        restore(home, tmp_path / "nowhere")
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    with pytest.raises(StoreError, match="cannot copy"):
        restore(home, tmp_path / "noise")
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE other (id)").connection.close()
    with pytest.raises(DamagedError, match="does not begin with a genesis"):
        restore(home, tmp_path / "other")


def test_nothing_is_overwritten(place: Place, tmp_path: Path) -> None:
    home = create(place, tmp_path)
    back_up(home, tmp_path / "backup")
    with pytest.raises(HomeError, match="never overwritten"):
        back_up(home, tmp_path / "backup")
    with pytest.raises((HomeError, StoreError), match="never overwritten"):
        restore(home, tmp_path / "backup")


def test_what_an_old_database_left_beside_it_is_not_read_into_another(tmp_path: Path) -> None:
    home = Home.create(tmp_path / "ledger", ORIGIN, EXAMPLE)
    back_up(home, tmp_path / "backup")
    home.default_database.rename(tmp_path / "moved")
    Path(f"{home.default_database}-wal").write_bytes(b"of the old one")
    with pytest.raises(HomeError, match="-wal is there"):
        restore(home, tmp_path / "backup")
