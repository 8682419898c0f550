"""A ledger on SQLite, with everything going wrong around it, against a naive model.

Parties send right and wrong orders in batches, twice, late or never; clocks jump; the database fails at any write and
before or after any commit, and the process dies there or goes on. After every commit the ledger is what the model is.
NECTAR_SIMULATION_SEED repeats one run, and NECTAR_SIMULATION_STEPS says how long the slow one is.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.machine import Draft, Outcome, ReadRows, Rejected, Row
from nectar_ledger.core.orders import Begin, Order
from nectar_ledger.core.state import BURNED, EMISSION, State
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.schema import commands, log_entries, log_sealed
from nectar_ledger.store.tables import TABLES
from nectar_ledger.store.versions import migrate
from nectar_ledger.store.writer import Writer

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.model import Model
from tests.ledger.core.play import BY_KEY, SMALL, Play, draw
from tests.ledger.core.tariff import No
from tests.ledger.world import MODEL, START_MS, World

STEPS = 800


class Failure(Exception):
    """What a database does at the worst moment."""


class Brittle:
    """A database that fails once: at a write, at a commit, or when a commit is done and nobody has heard of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.write: int | None = None  # writes until it fails
        self.commit: str | None = None  # "before" or "after"
        sa.event.listen(database.writing, "commit", self._committing)

    @property
    def writing(self) -> sa.Engine:
        return self._database.writing

    @property
    def reading(self) -> sa.Engine:
        return self._database.reading

    def hold(self, patience_s: float = 5) -> AbstractContextManager[sa.Connection]:
        return self._database.hold(patience_s)

    def add(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        self._writing()
        self._database.add(connection, table, rows)

    def put(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
        self._writing()
        self._database.put(connection, table, rows)

    def arm(self, random: Random) -> None:
        self.write = self.commit = None
        match random.randrange(20):
            case 0:
                self.write = random.randrange(12)
            case 1:
                self.commit = random.choice(("before", "after"))

    def _writing(self) -> None:
        if self.write == 0:
            self.write = None
            raise Failure("at a write")
        if self.write is not None:
            self.write -= 1

    def _committing(self, connection: sa.Connection) -> None:
        where, self.commit = self.commit, None
        if where == "after":
            connection.exec_driver_sql("COMMIT")
        if where is not None:
            raise Failure(f"{where} a commit")


class Simulation:
    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.world = Random(seed), World(SMALL)
        self.play = Play(self.world)
        self.database = Brittle(open_database(f"sqlite:///{folder / 'ledger.db'}"))
        migrate(self.database)
        self.clock_ms = self.play.now_ms = START_MS
        self.writer = self._open()
        self.writer.write([[Begin(self.world.genesis)]])
        self.model = Model(self.world.genesis, self.world.ledger, START_MS)
        self.failures = 0

    def _open(self) -> Writer[Order]:
        def machine(read: ReadRows, size: int, time_ms: int) -> Ledger:
            return Ledger(load(read, size, time_ms), self.world.keys.holds)

        return Writer(self.database, TABLES, machine, lambda: self.clock_ms, patience_s=0)

    @property
    def state(self) -> State:
        machine = self.writer.machine
        assert isinstance(machine, Ledger)
        return machine.state

    def run(self, steps: int) -> None:
        self.record([list(self.play.prologue())])
        for number in range(steps):
            if number % 200 == 199:
                self.audit()
            try:
                self.record([self.batch() for _ in range(self.random.choice((1, 1, 1, 2, 3)))])
            except BaseException as error:
                error.add_note(f"group {number}")
                raise
        self.audit()

    def batch(self) -> list[Order]:
        orders = []
        # Everybody reads the policy and the model's entry before they go on.
        self.world.policy, self.world.model = self.model.policy, self.model.models.get(MODEL.model, MODEL)
        for _ in range(self.random.choice((1, 1, 2, 3, 6))):
            self.play.batches = [(number, BY_KEY[pot.node]) for number, pot in self.model.pots.items()]
            order = self.play.act(draw(self.random))
            # Some are lost on their way, and come later or never.
            orders += [order] * self.random.choice((0, 1, 1, 1, 1, 1, 1, 2))
        return orders

    def record(self, batches: list[list[Order]]) -> None:
        """One group, which is written or not; either way the ledger is what the model says then."""
        # The clock may run behind the log.
        self.clock_ms = self.play.now_ms - self.random.choice((0, 0, 0, 0, 5_000))
        now_ms, size = max(self.model.last_ms, self.clock_ms), self.writer.durable_size
        self.database.arm(self.random)
        outcomes: list[Outcome] | None
        try:
            outcomes = [outcome for batch in self.writer.write(batches) for outcome in batch]
        except Failure:
            self.failures += 1
            outcomes = None
            self._recover()
        orders = [order for batch in batches for order in batch]
        if outcomes is not None:
            self.answer(orders, outcomes, now_ms)
        elif self.writer.durable_size > size:
            self.model_alone(orders, now_ms)
        assert seen(self.state) == view(self.model)

    def _recover(self) -> None:
        """As the sequencer does, or as the next process does."""
        self.database.write = self.database.commit = None
        if self.random.random() < 0.5:
            self.writer.load()
        else:
            self.writer.close()
            self.writer = self._open()

    def answer(self, orders: list[Order], outcomes: list[Outcome], now_ms: int) -> None:
        for order, outcome in zip(orders, outcomes, strict=True):
            try:
                self.model.do(order, now_ms)
                refused = False
            except No:
                refused = True
            assert refused == isinstance(outcome, Rejected), (order, outcome)
            # Some answers are lost on their way.
            if self.random.random() < 0.95:
                self.play.hear(order, outcome)

    def model_alone(self, orders: list[Order], now_ms: int) -> None:
        """It was written, but nobody was told what became of it."""
        for order in orders:
            try:
                self.model.do(order, now_ms)
            except No:
                continue

    def audit(self) -> None:
        """The tables are what a replay of the log gives, to the byte."""
        with self.database.reading.begin() as connection:
            stored = {table.name: list(read_rows(connection, table)) for table in (*TABLES, commands)}
            sealed = dict(tuple(row) for row in read_rows(connection, log_sealed))
            drafts = [Draft(entry, sealed.get(index)) for index, entry in read_rows(connection, log_entries)]
        replayed = mirrored(drafts)
        for name, rows in stored.items():
            assert rows == replayed.rows(name), name

    def close(self) -> None:
        self.writer.close()
        self.database.writing.dispose()


def seen(state: State) -> dict[str, object]:
    """What the ledger's core says."""
    books, accounts = state.ledger, state.accounts
    return {
        "wallets": {key: account.balance_ucr for key, account in state.wallets.items()},
        "purses": {purse.account.owner: purse.balance_ucr for purse in state.purses.values() if purse.balance_ucr},
        "holds": {
            id: (
                live.account.id, live.account.balance_ucr, live.hold.revision, live.hold.expires_ms,
                {node: (line.cap_units, line.seq, line.units, line.final) for node, line in live.lines.items()},
            )
            for id, live in state.holds.items()
        },
        "batches": {
            id: (batch.node.key, batch.model, batch.units, batch.account.balance_ucr, len(batch.verdicts))
            for id, batch in state.batches.items()
        },
        "nodes": {key: node.payee.owner for key, node in state.nodes.items()},
        "free units": {key: node.free_units for key, node in state.nodes.items() if node.free_units},
        "books": (
            -accounts[EMISSION].balance_ucr, accounts[BURNED].balance_ucr, books.granted_ucr, books.epoch,
            books.epoch_started_ms, books.next_account - 1, state.rules, state.time_ms,
        ),
    }  # fmt: skip


def view(model: Model) -> dict[str, object]:
    """The same of the model."""
    return {
        "wallets": model.wallets,
        "purses": {key: balance for key, balance in model.purses.items() if balance},
        "holds": {
            id: (
                hold.number, hold.balance, hold.revision, hold.expires_ms,
                {node: (line.cap, line.seq, line.units, line.final) for node, line in hold.lines.items()},
            )
            for id, hold in model.holds.items()
        },
        "batches": {
            number: (pot.node, pot.model, pot.units, pot.earned, len(pot.verdicts))
            for number, pot in model.pots.items()
        },
        "nodes": model.payees,
        "free units": {key: units for key, units in model.free.items() if units},
        "books": (
            model.emitted, model.burned, model.granted, model.epoch, model.epoch_ms, model.accounts, model.policy,
            model.last_ms,
        ),
    }  # fmt: skip


def simulate(folder: Path, seed: int, steps: int) -> Simulation:
    simulation = Simulation(folder, seed)
    try:
        simulation.run(steps)
    except BaseException as error:
        error.add_note(f"NECTAR_SIMULATION_SEED={seed}")
        raise
    finally:
        simulation.close()
    return simulation


@pytest.mark.parametrize("seed", [int(os.environ.get("NECTAR_SIMULATION_SEED", "1"))])
def test_whatever_happens_the_ledger_is_what_the_model_is(tmp_path: Path, seed: int) -> None:
    simulation = simulate(tmp_path, seed, STEPS)
    assert simulation.failures > STEPS // 50
    assert simulation.writer.durable_size > STEPS


@pytest.mark.slow
def test_whatever_happens_for_long_the_ledger_is_what_the_model_is(tmp_path: Path) -> None:
    seed = int(os.environ.get("NECTAR_SIMULATION_SEED", Random().randrange(10**9)))
    simulate(tmp_path, seed, int(os.environ.get("NECTAR_SIMULATION_STEPS", "4000")))
