"""Ledgers to measure: a data folder and a database of its own each, served by a real `nectar ledger serve` process."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nectar_demo.ledger import LedgerProcess
from nectar_ledger.core.machine import Answer, Outcome
from nectar_ledger.core.orders import Obey
from nectar_ledger.home import Home, Role, new_salt, read_genesis
from nectar_ledger.store.database import Database
from nectar_ledger.store.sequencer import unix_ms
from nectar_protocol.command import SignedCommand
from nectar_protocol.hold import Hold, SignedHold

from benchmarks.people import POLICY, People

NETWORK = "ledger.example/benchmark"


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


@contextmanager
def serving(home: Home) -> Iterator[LedgerProcess]:
    """A process that serves the ledger, and is killed at the end if it still runs."""
    process = LedgerProcess(home)
    try:
        yield process.wait()
    finally:
        process.kill()
