"""A ledger's data folder is made once, as a whole, for its owner's eyes; what is wrong with one is said."""

import stat
from pathlib import Path

import pytest
from nectar_ledger.audit.verify import verify
from nectar_ledger.core.orders import Obey, Order
from nectar_ledger.errors import HomeError, LockedError, StoreError
from nectar_ledger.home import Home, Role, new_salt, read_genesis
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.tables import outages
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.command import Command
from nectar_protocol.commands import Grant, KeyPurpose, KeyState, SetKey
from nectar_protocol.errors import MalformedError
from nectar_protocol.policy import EXAMPLE

from tests.ledger.engines import Place
from tests.ledger.world import FAR_MS, ORIGIN, START_MS, person


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "ledger", ORIGIN, EXAMPLE, clock_ms=lambda: START_MS)


def signed(home: Home, command: Command) -> Order:
    return Obey(command.signed(home.identity(Role.OPERATOR)), new_salt())


def ids(home: Home) -> tuple[bytes, bytes, int]:
    """What a command of this ledger begins with."""
    database = home.database()
    ledger, _ = read_genesis(database)
    database.writing.dispose()
    return ledger, new_salt()[:16], FAR_MS


def grant(home: Home, amount_ucr: int = 5) -> Order:
    return signed(home, Grant(*ids(home), home.identity(Role.OPERATOR).public, person("alice").public, amount_ucr))


def record(home: Home, *orders: Order, now_ms: int = START_MS) -> None:
    database = home.database()
    try:
        home.record(database, orders, lambda: now_ms)
    finally:
        database.writing.dispose()


def test_a_new_ledger_is_whole_and_its_owners_alone(home: Home) -> None:
    database = home.database()
    ledger, genesis = read_genesis(database)
    assert (genesis.network, genesis.policy) == (ORIGIN, EXAMPLE)
    assert [genesis.operator, genesis.publisher, genesis.holds, genesis.log] == [
        home.identity(role).public for role in Role
    ]
    note = home.published.read()
    assert note is not None
    assert Checkpoint.parse(note.text).size == 1
    report = verify(database, note)
    assert (report.findings, report.ledger) == ([], ledger)
    database.writing.dispose()
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) for path in (home.root, home.default_database, *home.keys.iterdir())
    }
    assert set(modes.values()) == {0o700, 0o600}
    assert Home.open(home.root) == home


def test_a_ledger_is_never_overwritten(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.keys.iterdir()}
    with pytest.raises(HomeError, match="never overwritten"):
        Home.create(home.root, ORIGIN, EXAMPLE)
    assert {path: path.read_bytes() for path in home.keys.iterdir()} == before


def test_a_database_with_a_ledger_takes_no_other(place: Place, tmp_path: Path) -> None:
    first = Home.create(tmp_path / "first", ORIGIN, EXAMPLE, place.url)
    with pytest.raises(HomeError, match="the database has a ledger"):
        Home.create(tmp_path / "second", ORIGIN, EXAMPLE, place.url)
    assert not (tmp_path / "second" / "keys").exists()
    assert not first.default_database.exists()
    assert Home.open(first.root, place.url).database_url == place.url
    with pytest.raises(HomeError, match="--database"):
        Home.open(first.root)


def test_what_is_no_ledger_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="nectar ledger init"):
        Home.open(tmp_path)
    with pytest.raises(MalformedError):
        Home.create(tmp_path / "other", "no name", EXAMPLE)
    with pytest.raises(StoreError, match="sqlite:///FILE"):
        Home.create(tmp_path / "other", ORIGIN, EXAMPLE, "nonsense")
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="cannot make the folder"):
        Home.create(tmp_path / "file" / "ledger", ORIGIN, EXAMPLE)
    empty = open_database(f"sqlite:///{tmp_path / 'empty.db'}")
    place = Place(f"sqlite:///{tmp_path / 'empty.db'}", lambda: "")
    place.create()
    with pytest.raises(HomeError, match="has no ledger"):
        read_genesis(empty)
    empty.writing.dispose()
    place.close()


def test_keys_that_are_wrong_are_named(home: Home) -> None:
    path = home.key_file(Role.HOLDS)
    path.chmod(0o640)
    with pytest.raises(HomeError, match="chmod 600"):
        home.identity(Role.HOLDS)
    path.chmod(0o600)
    path.write_bytes(b"no key")
    with pytest.raises(HomeError, match="not a libp2p"):
        home.identity(Role.HOLDS)
    path.unlink()
    with pytest.raises(HomeError, match="cannot read the key file"):
        home.identity(Role.HOLDS)


def test_a_stopped_ledger_is_written_to_after_saying_for_how_long_it_was_down(home: Home) -> None:
    record(home, grant(home), now_ms=START_MS + 5_000)
    database = home.database()
    with database.reading.begin() as connection:
        assert list(read_rows(connection, outages)) == [(1, START_MS, START_MS + 5_000)]
    assert verify(database).findings == []
    database.writing.dispose()


def test_what_a_ledger_refuses_is_said(home: Home) -> None:
    with pytest.raises(HomeError, match="wrong-amount"):
        record(home, grant(home, EXAMPLE.grants_ucr + 1))


def test_a_running_ledger_is_not_written_to_from_outside(home: Home) -> None:
    database = home.database()
    with database.hold(), pytest.raises(LockedError):
        record(home, grant(home))
    database.writing.dispose()


def test_another_key_for_holds_takes_over_once_it_is_set(home: Home) -> None:
    operator = home.identity(Role.OPERATOR).public
    old = home.identity(Role.HOLDS)
    set_new = SetKey(*ids(home), operator, person("new").public, KeyPurpose.HOLDS, KeyState.ACTIVE)
    revoke_old = SetKey(*ids(home), operator, old.public, KeyPurpose.HOLDS, KeyState.REVOKED)
    record(home, signed(home, set_new), signed(home, revoke_old))
    database = home.database()
    assert verify(database).findings == []
    database.writing.dispose()
