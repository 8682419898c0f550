"""Ledgers to measure: a data folder and a database of its own each, served by a real `nectar ledger serve` process."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nectar_ledger.core.orders import Obey
from nectar_ledger.home import Home, Role, new_salt, read_genesis
from nectar_ledger.store.sequencer import unix_ms

from benchmarks.people import POLICY, People

HOST = "127.0.0.1"
NETWORK = "ledger.example/benchmark"
START_S = 60.0
END_S = 60.0


class LedgerError(Exception):
    """A ledger's process did not do what it was started for."""


def found(root: Path, database_url: str, people: People) -> Home:
    """A ledger in which these people have credits and their nodes are bound."""
    home = Home.create(root, NETWORK, POLICY, database_url)
    database = home.database()
    try:
        ledger, _ = read_genesis(database)
        operator, publisher = home.identity(Role.OPERATOR), home.identity(Role.POLICY)
        commands = people.beginnings(ledger, operator, publisher, unix_ms())
        home.record(database, [Obey(command, new_salt()) for command in commands])
    finally:
        database.writing.dispose()
    return home


class LedgerProcess:
    """`nectar ledger serve` on a port of this machine: begun by the constructor, serving when `wait` returns."""

    def __init__(self, home: Home) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port: int = free.getsockname()[1]
        self.log = home.root / "serve.log"
        command = [sys.executable, "-m", "nectar.cli", "ledger", "serve", "--data", str(home.root)]
        command += ["--database", home.database_url, "--host", HOST, "--port", str(self.port)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NECTAR_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=home.root,  # where no nectar.toml of the user's lies
                start_new_session=True,  # Ctrl-C is for us, not for the ledger
            )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> "LedgerProcess":
        """Until the ledger is ready. Raises LedgerError with the end of its log if it does not come to be."""
        deadline_s = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline_s:
            if self._is_ready():
                return self
            time.sleep(0.02)
        self.kill()
        raise LedgerError(f"the ledger did not start (exit code {self.process.returncode}): {self.said()[-2000:]}")

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def said(self) -> str:
        """What its log says."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        """The exit code of a process that ends by itself. Raises LedgerError if it does not."""
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise LedgerError(f"the ledger did not end within {END_S:.0f} s: {self.said()[-2000:]}") from error

    def stop(self) -> int:
        """Ask it to end, and wait: the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended()


@contextmanager
def serving(home: Home) -> Iterator[LedgerProcess]:
    """A process that serves the ledger, and is killed at the end if it still runs."""
    process = LedgerProcess(home)
    try:
        yield process.wait()
    finally:
        process.kill()
