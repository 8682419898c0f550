"""What is read of the tables is what the log says, page by page, and nothing that is private."""

import random
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.machine import ReadRows
from nectar_ledger.core.node import BatchState
from nectar_ledger.core.orders import Begin, Order
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.database import Database
from nectar_ledger.store.sequencer import Sequencer
from nectar_ledger.store.tables import TABLES
from nectar_ledger.store.views.accounts import AccountRow, find_account, list_statement
from nectar_ledger.store.views.batches import find_batch, list_batches_of, list_verdicts
from nectar_ledger.store.views.epochs import list_epochs, read_supply
from nectar_ledger.store.views.holds import find_hold, list_holds_of
from nectar_ledger.store.views.ledger import read_ledger
from nectar_ledger.store.views.models import find_model, list_models
from nectar_ledger.store.views.nodes import find_node, list_nodes, list_nodes_of
from nectar_ledger.store.views.page import Page, Window
from nectar_ledger.store.views.policies import find_policy, list_policies, newest_policy
from nectar_ledger.store.views.purses import find_purse, list_purse_lines
from nectar_ledger.store.views.settlements import list_settlements_of_batch, list_settlements_of_hold
from nectar_protocol.commands import Outcome
from nectar_protocol.entries import BatchClosed, HoldClosed, HoldOpened, Settled
from nectar_protocol.entry import entry_hash, parse_entry
from nectar_protocol.identity import Identity

from tests.ledger.engines import Place
from tests.ledger.town import ALICE, BOB, CAP_UNITS, CAROL, FIRST, NORTH, SOUTH, TOWN_POLICY, Clock, Town
from tests.ledger.world import ORIGIN, World, person

ALL = Window(200)
Item = TypeVar("Item")


def start(database: Database, world: World, clock: Clock) -> Sequencer[Order]:
    def open_machine(read: ReadRows, size: int, time_ms: int) -> Ledger:
        return Ledger(load(read, size, time_ms), world.keys.holds)

    return Sequencer(database, TABLES, open_machine, clock)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One for all tests here: none of them writes."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('views') / 'ledger.db'}"
    else:
        url = request.getfixturevalue("postgres").empty()
    place = Place(url, lambda: url)
    yield place.create()
    place.close()


@pytest.fixture(scope="module")
def log(database: Database) -> LogReader:
    return LogReader(database)


@pytest.fixture(scope="module")
def town(database: Database, log: LogReader) -> Iterator[Town]:
    clock, world = Clock(), World(TOWN_POLICY)

    sequencer = start(database, world, clock)
    town = Town(world, sequencer.submit, log.entry, clock)
    town.do(Begin(world.genesis))
    town.live_a_day()
    yield town
    sequencer.close()


@pytest.fixture
def connection(town: Town, database: Database) -> Iterator[sa.Connection]:
    with database.reading.begin() as connection:
        yield connection


def account(connection: sa.Connection, owner: Identity) -> AccountRow:
    found = find_account(connection, owner.public)
    assert found is not None
    return found


def whole(read: Callable[[Window], Page[Item]]) -> tuple[Item, ...]:
    """A list, newest first, after its pages of one and of two have been put together again in both directions."""
    page = read(ALL)
    assert page.next is None
    for size in (1, 2):
        down: list[Item] = []
        window = Window(size)
        while True:
            part = read(window)
            down += part.items
            if part.next is None:
                break
            window = Window(size, before=part.next)
        up: list[Item] = []
        window = Window(size, after=0)
        while True:
            part = read(window)
            up += part.items
            if part.next is None:
                break
            window = Window(size, after=part.next)
        assert tuple(down) == page.items == tuple(reversed(up))
    return page.items


def test_a_statement_has_every_transfer_with_the_balance_after_it(connection: sa.Connection, log: LogReader) -> None:
    alice = account(connection, ALICE)
    lines = whole(lambda window: list_statement(connection, alice, window))
    assert [(line.code, line.amount_ucr, line.balance_ucr, line.other.kind) for line in reversed(lines)] == [
        (Code.GRANT, 20_000_000, 20_000_000, AccountKind.EMISSION),
        (Code.FUND, -10_000_000, 10_000_000, AccountKind.POOL),
        (Code.WITHDRAW, 1_000, 10_001_000, AccountKind.POOL),
    ]
    assert alice.balance_ucr == 10_001_000
    assert all(line.index == line.id >> 8 for line in lines)
    assert [line.time_ms for line in lines] == [parse_entry(log.entry(line.index)).time_ms for line in lines]


def test_a_payee_is_paid_by_batches_and_by_emission(connection: sa.Connection, town: Town) -> None:
    bob = account(connection, BOB)
    released, emitted = sorted(list_statement(connection, bob, ALL).items, key=lambda line: line.code)
    batch = find_batch(connection, town.judged)
    assert batch is not None
    assert (released.code, released.amount_ucr, released.other.id) == (Code.RELEASE, batch.earned_ucr, town.judged)
    assert emitted.code is Code.EMIT
    assert bob.balance_ucr == released.amount_ucr + emitted.amount_ucr


def test_a_key_without_an_account_has_none(connection: sa.Connection) -> None:
    assert find_account(connection, person("stranger").public) is None


def test_a_purse_has_a_line_for_each_hold_that_it_paid(connection: sa.Connection, town: Town, log: LogReader) -> None:
    alice = account(connection, ALICE)
    lines = whole(lambda window: list_purse_lines(connection, alice.id, window))
    assert [line.code for line in reversed(lines)] == [
        Code.FUND, Code.ESCROW, Code.RETURN, Code.ESCROW, Code.ESCROW, Code.WITHDRAW,
    ]  # fmt: skip
    purse = find_purse(connection, alice.id)
    assert purse.balance_ucr == lines[0].balance_ucr == sum(line.amount_ucr for line in lines)
    assert purse.open_holds == 1
    for line in lines:
        match parse_entry(log.entry(line.index)).body:
            case HoldOpened(signed):
                assert line.hold == signed.hold.id
            case HoldClosed(hold):
                assert line.hold == hold
            case _:
                assert line.hold is None
    assert find_purse(connection, account(connection, BOB).id).balance_ucr == 0


def test_a_hold_is_shown_with_its_lines_and_newest_receipts(
    connection: sa.Connection, town: Town, log: LogReader
) -> None:
    hold = find_hold(connection, town.spent.id)
    assert hold is not None
    assert hold.closed_index is not None
    assert (hold.session, hold.weight, hold.revision, hold.left_ucr) == (FIRST.public, 1, 1, 0)
    assert set(hold.profiles) == town.spent.profiles
    assert [(line.node, line.seq, line.final) for line in hold.lines] == [
        (NORTH.public, 2, True), (SOUTH.public, 1, True),
    ]  # fmt: skip
    for line in hold.lines:
        assert line.receipt_index is not None
        body = parse_entry(log.entry(line.receipt_index)).body
        assert isinstance(body, Settled)
        assert body.receipt.pack() == line.receipt
        assert body.receipt.receipt.units == line.units
    live = find_hold(connection, town.live.id)
    assert live is not None
    assert (live.revision, live.closed_index, live.expires_ms) == (2, None, town.live.expires_ms)
    assert live.revised_index == live.opened_index + 1
    assert find_hold(connection, bytes(32)) is None


def test_only_an_accounts_own_holds_are_listed(connection: sa.Connection, town: Town) -> None:
    mine = whole(lambda window: list_holds_of(connection, account(connection, ALICE).id, window))
    assert [hold.id for hold in mine] == [town.live.id, town.spent.id]
    assert list_holds_of(connection, account(connection, BOB).id, ALL).items == ()


def test_nodes_have_their_payees_and_what_waits(connection: sa.Connection, town: Town) -> None:
    south, north = whole(lambda window: list_nodes(connection, window))
    assert (north.key, north.payee, south.key, south.payee) == (NORTH.public, BOB.public, SOUTH.public, BOB.public)
    waiting = find_batch(connection, town.waiting)
    assert waiting is not None
    assert (north.open_batches, north.pending_ucr) == (1, waiting.earned_ucr)
    assert find_node(connection, NORTH.public) == north
    assert find_node(connection, ALICE.public) is None
    assert whole(lambda window: list_nodes_of(connection, account(connection, BOB).id, window)) == (south, north)
    assert list_nodes_of(connection, account(connection, CAROL).id, ALL).items == ()


def test_batches_are_listed_by_node(connection: sa.Connection, town: Town) -> None:
    north = find_node(connection, NORTH.public)
    assert north is not None
    waiting, judged = whole(lambda window: list_batches_of(connection, north.id, window))
    assert (waiting.id, waiting.state, waiting.closed_index) == (town.waiting, BatchState.OPEN, None)
    assert (judged.id, judged.state, judged.node) == (town.judged, BatchState.RELEASED, NORTH.public)
    assert judged.units > judged.free_units > 0
    assert find_batch(connection, judged.id) == judged
    assert find_batch(connection, 1) is None


def test_verdicts_are_those_that_the_closing_entry_shows_and_none_of_an_open_batch(
    connection: sa.Connection, town: Town, log: LogReader
) -> None:
    judged = find_batch(connection, town.judged)
    assert judged is not None
    assert judged.closed_index is not None
    (shown,) = list_verdicts(connection, town.judged)
    assert shown.verdict.outcome is Outcome.PASSED
    closing = parse_entry(log.entry(judged.closed_index)).body
    assert isinstance(closing, BatchClosed)
    assert closing.verdicts == ((shown.index, shown.sealed),)
    assert list_verdicts(connection, town.waiting) == []


def test_settlements_add_up_to_their_batch_and_their_hold(connection: sa.Connection, town: Town) -> None:
    batch, hold = find_batch(connection, town.judged), find_hold(connection, town.spent.id)
    assert batch is not None
    assert hold is not None
    of_batch = whole(lambda window: list_settlements_of_batch(connection, batch.id, window))
    assert sum(settlement.paid_ucr for settlement in of_batch) == batch.earned_ucr
    assert sum(settlement.units for settlement in of_batch) == batch.units
    assert {settlement.hold for settlement in of_batch} == {town.free.id, town.spent.id}
    of_hold = whole(lambda window: list_settlements_of_hold(connection, hold.account, window))
    assert sum(settlement.units for settlement in of_hold) == sum(line.units for line in hold.lines)
    assert {settlement.node for settlement in of_hold} == {NORTH.public, SOUTH.public}
    assert all(line.cap_units == CAP_UNITS for line in hold.lines)


def test_the_supply_is_what_all_have_together(connection: sa.Connection) -> None:
    supply, (epoch,) = read_supply(connection), whole(lambda window: list_epochs(connection, window))
    assert supply is not None
    assert (epoch.number, supply.epoch) == (1, 2)
    assert supply.epoch_started_ms == epoch.ended_ms
    assert supply.burned_ucr > epoch.burned_ucr > 0
    wallets_ucr = sum(account(connection, owner).balance_ucr for owner in (ALICE, BOB, CAROL))
    assert supply.wallets_ucr == wallets_ucr
    assert supply.pool_ucr == find_purse(connection, account(connection, ALICE).id).balance_ucr
    circulating_ucr = supply.wallets_ucr + supply.pool_ucr + supply.holds_ucr + supply.batches_ucr
    assert supply.emitted_ucr - supply.burned_ucr == circulating_ucr


def test_policies_and_models_are_found_by_their_ids(connection: sa.Connection, town: Town) -> None:
    world = town.world
    (row,) = whole(lambda window: list_policies(connection, window))
    assert row == find_policy(connection, world.policy.id) == newest_policy(connection)
    assert (row.index, row.policy) == (0, world.policy)
    (model,) = whole(lambda window: list_models(connection, window))
    assert model == find_model(connection, world.model.model) == find_model(connection, world.model.model, 1)
    assert model.entry == world.model
    assert find_model(connection, world.model.model, 2) is None
    assert find_policy(connection, bytes(32)) is find_model(connection, bytes(32)) is None


def test_the_ledger_says_who_it_is(connection: sa.Connection, town: Town, log: LogReader) -> None:
    ledger = read_ledger(connection)
    assert ledger is not None
    assert (ledger.id, ledger.network) == (entry_hash(log.entry(0)), ORIGIN)
    assert (ledger.size, ledger.time_ms) == (log.size(), parse_entry(log.entry(log.size() - 1)).time_ms)
    assert (ledger.holds_key, ledger.log_key) == (town.world.keys.holds.public, town.world.keys.log.public)


@pytest.mark.parametrize("seed", range(3))
def test_balances_are_right_wherever_a_page_begins(tmp_path: Path, seed: int) -> None:
    chance, place = random.Random(seed), Place(f"sqlite:///{tmp_path / 'ledger.db'}", lambda: "")
    database, world, clock = place.create(), World(TOWN_POLICY), Clock()
    sequencer = start(database, world, clock)
    orders: list[Order] = [Begin(world.genesis), world.grant(ALICE, 1_000_000), world.fund(ALICE, 500_000)]
    for _ in range(60):
        move = chance.choice((world.fund, world.withdraw))
        orders.append(move(ALICE, 1_000 * chance.randint(1, 5)))
    sequencer.submit(orders).result(30)
    sequencer.close()
    with database.reading.begin() as connection:
        alice = account(connection, ALICE)
        every = list_statement(connection, alice, ALL).items[::-1]
        assert [line.balance_ucr for line in every] == list(accumulate(line.amount_ucr for line in every))
        for _ in range(100):
            limit, bound = chance.randint(1, 30), chance.choice(every).id + chance.randint(-1, 1)
            older = [line for line in every if line.id < bound][::-1]
            newer = [line for line in every if line.id > bound]
            assert list(list_statement(connection, alice, Window(limit, before=bound)).items) == older[:limit]
            assert list(list_statement(connection, alice, Window(limit, after=bound)).items) == newer[:limit]
    place.close()


def test_before_the_genesis_there_is_nothing(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path / 'ledger.db'}", lambda: "")
    with place.create().reading.begin() as connection:
        assert read_ledger(connection) is read_supply(connection) is newest_policy(connection) is None
    place.close()
