"""Which tables the database has, and how it gets those that this program needs: by alembic's migrations."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from nectar_ledger.errors import StoreError, VersionError
from nectar_ledger.store.database import Database


def migrate(database: Database, patience_s: float = 5) -> None:
    """Create the tables, or bring them up to date, in one transaction. Raises LockedError while a sequencer runs."""
    with database.hold(patience_s) as connection, connection.begin():
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_database(database: Database) -> None:
    """Raises StoreError for a database that cannot be reached, VersionError unless its tables are this program's."""
    try:
        with database.reading.begin() as connection:
            check_version(connection)
    except DBAPIError as error:
        raise StoreError(f"the ledger's database cannot be opened: {error.orig}") from error


def check_version(connection: sa.Connection) -> None:
    """Raises VersionError unless the tables are those of this program."""
    scripts = ScriptDirectory.from_config(_config())
    found, needed = MigrationContext.configure(connection).get_current_revision(), scripts.get_current_head()
    if found == needed:
        return
    if found is None:
        raise VersionError(
            "the database has no tables of a ledger: create them with nectar_ledger.store.versions.migrate"
        )
    if found in {script.revision for script in scripts.walk_revisions()}:
        raise VersionError(
            f"the database's tables are of version {found!r} and this program needs {needed!r}: make a backup, then "
            "bring them up to date with nectar_ledger.store.versions.migrate"
        )
    raise VersionError(f"the database's tables are of version {found!r}, unknown here: install a newer Nectar")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
