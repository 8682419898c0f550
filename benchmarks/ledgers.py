"""Ledgers to measure: a data folder and a database of its own each, served by a real `nectar ledger serve` process."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nectar_ledger.core.machine import Answer, Outcome
from nectar_ledger.core.orders import Obey
from nectar_ledger.home import Home, Role, new_salt, read_genesis
from nectar_ledger.store.database import Database
from nectar_ledger.store.sequencer import unix_ms
from nectar_protocol.command import SignedCommand
from nectar_protocol.hold import Hold, SignedHold

from benchmarks.people import POLICY, People

NETWORK = "ledger.example/benchmark"
START_S = 60.0
END_S = 60.0


class LedgerError(Exception):
    """A ledger's process did not do what it was started for."""


def found(root: Path, database_url: str, people: People) -> Home:
    """A ledger in which these people have credits and their nodes are bound."""
    home = Home.create(root, NETWORK, POLICY, database_url)
    operator, publisher = home.identity(Role.OPERATOR), home.identity(Role.POLICY)
    record(home, people.beginnings(ledger_id(home), operator, publisher, unix_ms()))
    return home


def open_holds(home: Home, people: People) -> list[Hold]:
    """All of them, by their numbers, in a ledger that is not running."""
    ledger, now_ms = ledger_id(home), unix_ms()
    answers = record(home, [people.opening(ledger, hold, now_ms) for hold in range(people.holds)])
    return [SignedHold.unpack(answer.response).hold for answer in answers if isinstance(answer, Answer)]


def ledger_id(home: Home) -> bytes:
    with connected(home) as database:
        return read_genesis(database)[0]


def record(home: Home, commands: Iterable[SignedCommand]) -> list[Outcome]:
    """What became of each."""
    with connected(home) as database:
        return home.record(database, [Obey(command, new_salt()) for command in commands])


@contextmanager
def connected(home: Home) -> Iterator[Database]:
    """The ledger's database, with no connection left open at the end."""
    database = home.database()
    try:
        yield database
    finally:
        database.writing.dispose()


class LedgerProcess:
    """`nectar ledger serve` on a free port of this machine: begun by the constructor, serving when `wait` returns."""

    def __init__(self, home: Home) -> None:
        self.url = self._output = ""
        self._log = home.root / "serve.log"
        command = [sys.executable, "-m", "nectar.cli", "ledger", "serve", "--json", "--data", str(home.root)]
        command += ["--database", home.database_url, "--host", "127.0.0.1", "--port", "0"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={key: value for key, value in os.environ.items() if not key.startswith("NECTAR_")},
                cwd=home.root,  # where no nectar.toml of the user's lies
                start_new_session=True,  # Ctrl-C is for us, not for the ledger
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> "LedgerProcess":
        """Until it serves. Raises LedgerError with the end of its log if it does not come to that."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if ready else "{}"
        self.url = json.loads(line or "{}").get("url", "")
        if not self.url:
            self._output += line
            self.kill()
            raise LedgerError(f"the ledger did not start: {self.said()[-2000:]}")
        return self

    def said(self) -> str:
        """Its log, and what it has printed in the end."""
        return self._log.read_text(errors="replace") + self._output

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.ended()

    def ended(self) -> int:
        """The exit code of a process that ends by itself. Raises LedgerError if it does not."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise LedgerError(f"the ledger did not end within {END_S:.0f} s: {self.said()[-2000:]}") from error
        stdout = self._process.stdout
        if stdout is not None and not stdout.closed:
            self._output += stdout.read()
            stdout.close()
        return code

    def stop(self) -> int:
        """Ask it to end, and wait: the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.ended()


@contextmanager
def serving(home: Home) -> Iterator[LedgerProcess]:
    """A process that serves the ledger, and is killed at the end if it still runs."""
    process = LedgerProcess(home)
    try:
        yield process.wait()
    finally:
        process.kill()
