"""The database is the one that the program needs, keeps what it confirms, and is checked before it is used."""

from pathlib import Path

import nectar_ledger
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from nectar_ledger.errors import DamagedError, NotRecordedError, StoreError, VersionError
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.schema import BIGINT, log_entries
from nectar_ledger.store.sequencer import Sequencer
from nectar_ledger.store.tables import metadata
from nectar_ledger.store.versions import migrate
from psycopg.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from tests.ledger import till
from tests.ledger.auditing import audit
from tests.ledger.engines import Place
from tests.ledger.till import TABLES, Till, Total


def test_migrations_make_the_tables_of_the_schema(place: Place) -> None:
    database = place.open()
    migrate(database)
    migrate(database)
    with database.reading.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_database_without_tables_is_refused(place: Place) -> None:
    with pytest.raises(VersionError, match="create them"):
        Sequencer(place.open(), TABLES, Till, patience_s=0)


def test_a_database_of_an_unknown_version_is_refused(place: Place, database: Database) -> None:
    with database.writing.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'later'"))
    with pytest.raises(VersionError, match="install a newer Nectar"):
        Sequencer(database, TABLES, Till, patience_s=0)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE log_head SET size = 2",
        "UPDATE log_head SET frontier = entry FROM log_entries WHERE idx = 0",
        "DELETE FROM log_head",
        "DELETE FROM log_entries WHERE idx = 2",
        "UPDATE log_tiles SET hashes = (SELECT frontier FROM log_head)",
    ],
)
def test_a_damaged_log_is_refused(place: Place, database: Database, damage: str) -> None:
    sequencer = Sequencer(database, TABLES, Till)
    sequencer.submit([Total(line, 1, 1) for line in range(3)]).result(30)
    sequencer.close()
    with database.writing.begin() as connection:
        connection.execute(sa.text(damage))
    with pytest.raises(DamagedError, match="restore"):
        Sequencer(database, TABLES, Till, patience_s=0)


def test_rows_of_an_undeclared_table_are_refused(database: Database) -> None:
    sequencer = Sequencer(database, TABLES[:2], Till)
    with pytest.raises(NotRecordedError):
        sequencer.submit([Total(1, 1, 1)]).result(30)
    sequencer.close()
    assert audit(database).size == 0


def test_rows_are_added_once_and_put_over_others(database: Database) -> None:
    with database.hold() as connection:
        with connection.begin():
            database.put(connection, till.lines, [(1, 1, 10), (2, 1, 20)])
            database.put(connection, till.lines, [(2, 2, 30)])
            database.add(connection, log_entries, [(0, b"entry")])
        with pytest.raises((IntegrityError, UniqueViolation)), connection.begin():
            database.add(connection, log_entries, [(0, b"other")])
        with connection.begin():
            assert connection.execute(sa.select(till.lines).order_by(till.lines.c.id)).all() == [(1, 1, 10), (2, 2, 30)]


def test_every_value_is_put_as_it_is(database: Database) -> None:
    rows = [
        (
            number,
            bytes(range(256)),
            f'{number} "quoted" \\ {{NULL}}, NULL %s µ\n',
            -(2**63),
            2**63 - 1,
            0,
            bool(number),
            b"",
        )
        for number in range(2)
    ]
    columns = ("id", "key", "text", "least", "most", "count", "flag", "empty")
    kinds = (BIGINT, sa.LargeBinary, sa.Text, BIGINT, BIGINT, BIGINT, sa.Boolean, sa.LargeBinary)
    table = sa.Table(
        "values",
        sa.MetaData(),
        *(sa.Column(*column, primary_key=column[0] == "id") for column in zip(columns, kinds, strict=True)),
    )
    nothing = (2, *[None] * 7)
    with database.hold() as connection, connection.begin():
        table.create(connection)
        database.put(connection, table, [*rows, nothing])
        database.put(connection, table, rows)
        assert connection.execute(sa.select(table).order_by(table.c.id)).all() == [*rows, nothing]


def test_writing_without_a_transaction_is_impossible(database: Database) -> None:
    with database.hold() as connection:
        try:
            database.add(connection, log_entries, [(0, b"entry")])
        except StoreError:
            return  # PostgreSQL's COPY
        assert connection.in_transaction()  # SQLite: SQLAlchemy has begun one, which a commit ends


def test_only_one_module_takes_the_drivers_cursor() -> None:
    root = Path(nectar_ledger.__file__).parent
    takers = {path.name for path in root.rglob("*.py") if "driver_connection" in path.read_text()}
    assert takers == {"postgres.py"}


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_sqlite_syncs_every_commit(database: Database) -> None:
    with database.writing.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_postgresql_that_does_not_sync_is_refused(place: Place) -> None:
    url = sa.make_url(place.url).update_query_dict({"options": "-c synchronous_commit=off"})
    unsafe = place.open(url.render_as_string(hide_password=False))
    with pytest.raises(StoreError, match="synchronous_commit = off"), unsafe.hold():
        pass


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/ledger", "nonsense"])
def test_a_url_of_no_ledger_is_refused(url: str) -> None:
    with pytest.raises(StoreError):
        open_database(url)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "postgresql://localhost:1/ledger"])
def test_a_database_out_of_reach_is_named(url: str) -> None:
    with pytest.raises(StoreError, match="cannot"), open_database(url).hold():
        pass
