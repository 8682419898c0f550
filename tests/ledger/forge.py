"""Ledgers whose operator is dishonest, has all keys and the database, and writes what is consistent in itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.machine import Accepted, Draft, ReadRows, Row
from nectar_ledger.core.orders import Begin, Order, Resume
from nectar_ledger.core.state import State
from nectar_ledger.log.published import Published
from nectar_ledger.log.reader import LogReader
from nectar_ledger.log.signer import Signer
from nectar_ledger.store.database import Database
from nectar_ledger.store.scan import read_parts
from nectar_ledger.store.sequencer import Sequencer
from nectar_ledger.store.tables import TABLES
from nectar_protocol.entry import parse_entry
from nectar_protocol.identity import Identity
from nectar_protocol.note import Note

from benchmarks.logfiles import write_log
from tests.ledger.town import TOWN_POLICY, Clock, Town
from tests.ledger.world import ORIGIN, World


def live_a_day(database: Database, folder: Path) -> tuple[Town, Note]:
    """A whole town in the log, and the checkpoint over it, which is published in `folder`."""
    clock, world = Clock(), World(TOWN_POLICY)

    def open_machine(read: ReadRows, size: int, time_ms: int) -> Ledger:
        return Ledger(load(read, size, time_ms), world.keys.holds)

    sequencer: Sequencer[Order] = Sequencer(database, TABLES, open_machine, clock)
    town = Town(world, sequencer.submit, LogReader(database).entry, clock)
    town.do(Begin(world.genesis))
    signer = Signer(database, ORIGIN, world.keys.log, Published(folder / "published"), clock)
    signer.sign()
    town.live_a_day()
    clock.now_ms += 60_000
    town.do(Resume())
    sequencer.close()
    return town, signer.sign()


def read_drafts(database: Database) -> list[Draft]:
    """The log with its sealed parts."""
    with database.reading.begin() as connection:
        return [
            Draft(entry, part.sealed.get(index))
            for part in read_parts(connection)
            for index, entry in enumerate(part.entries, part.start)
        ]


class Dictated(Ledger):
    """Writes what it is told. What the database refuses to have twice, it leaves out."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._answered: set[object] = set()

    def key(self, order: object) -> None:
        return None

    def decide(self, order: object, now_ms: int) -> Accepted:
        assert isinstance(order, Draft)
        return Accepted([order])

    def take_rows(self) -> Iterable[tuple[str, Row]]:
        for name, row in super().take_rows():
            if name != "commands" or row[0] not in self._answered:
                yield name, row
            if name == "commands":
                self._answered.add(row[0])


def dictate(database: Database, drafts: Sequence[Draft]) -> None:
    """Write a log into an empty database, with the tables that it gives."""
    last_ms = parse_entry(drafts[-1].entry).time_ms
    sequencer: Sequencer[Draft] = Sequencer(
        database, TABLES, lambda read, size, time_ms: Dictated(load(read, size, time_ms)), lambda: last_ms
    )
    sequencer.submit(drafts).result(30)
    sequencer.close()


def write_folder(entries: Sequence[bytes], log_key: Identity, folder: Path) -> None:
    """A log as static files, whatever its entries say."""
    write_log(entries, ORIGIN, log_key, folder)
