"""A running ledger on both engines: what it does by itself, from its start to its end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
import sqlalchemy as sa
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.orders import Begin, Order, Settle
from nectar_ledger.errors import ForkError, LedgerError, LockedError, StoppedError
from nectar_ledger.log.published import Published
from nectar_ledger.log.signer import Signer
from nectar_ledger.service import Service
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import log_tiles
from nectar_ledger.store.sequencer import Sequencer
from nectar_ledger.store.settled import LineSettled, read_settled
from nectar_ledger.store.tables import TABLES
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.entries import EpochClosed, Resumed
from nectar_protocol.entry import Body, parse_entry
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.identity import Identity

from tests.ledger.engines import Place
from tests.ledger.town import Clock
from tests.ledger.world import HOUR_MS, ORIGIN, START_MS, World, person

NODE, OWNER, ALICE = person("node"), person("owner"), person("alice")
Open = Callable[..., Service]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(database: Database, world: World, clock: Clock, tmp_path: Path) -> Iterator[Open]:
    """Starts the ledger, of the test's database unless another one is given; at the end it is closed."""
    opened: list[Service] = []

    def open_service(database: Database = database, begins: bool = True, beat_s: float = 0.01) -> Service:
        sequencer: Sequencer[Order] = Sequencer(
            database, TABLES, lambda read, size, time_ms: Ledger(load(read, size, time_ms), world.keys.holds), clock
        )
        if begins:
            sequencer.submit([Begin(world.genesis)]).result(30)
        try:
            signer = Signer(database, ORIGIN, world.keys.log, Published(tmp_path / "published"), clock)
        except ForkError:
            sequencer.close()
            raise
        service = Service(database, sequencer, signer, tmp_path / "evidence", clock, beat_s)
        opened.append(service)
        return service

    yield open_service
    for service in opened:
        service.close()


def usual(world: World) -> list[Order]:
    return [world.publish_model(), world.bind(NODE, OWNER)]


def free_hold(service: Service, world: World, session: Identity, clock: Clock) -> Hold:
    order = world.open_hold(session, session, {NODE: world.policy.free_cap_units}, clock() + 60_000)
    (answer,) = service.submit([order]).result(30)
    return SignedHold.unpack(answer.response).hold  # type: ignore[union-attr]


def bodies(service: Service) -> list[Body]:
    return [parse_entry(service.log.entry(index)).body for index in range(service.log.size())]


def wait_for(condition: Callable[[], bool]) -> None:
    pause = Event()
    for _ in range(3_000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it has not come about")


def signed_size(service: Service) -> int:
    note = service.checkpoint
    return 0 if note is None else Checkpoint.parse(note.text).size


def test_a_start_is_noted_with_the_time_since_when_the_ledger_was_down(start: Open, clock: Clock) -> None:
    start(beat_s=3600).close()
    clock.now_ms += HOUR_MS // 2
    service = start(beat_s=3600)
    # At the very first start the ledger was down for no time.
    assert [body.down_from_ms for body in bodies(service) if isinstance(body, Resumed)] == [START_MS, START_MS]
    assert service.state.outages == [(START_MS, START_MS + HOUR_MS // 2)]


def test_what_time_brings_happens_by_itself(start: Open, clock: Clock, world: World) -> None:
    service, session = start(), person("session")
    service.submit(usual(world)).result(30)
    hold = free_hold(service, world, session, clock)
    clock.now_ms += 2 * HOUR_MS
    wait_for(lambda: hold.id not in service.state.holds)
    assert any(isinstance(body, EpochClosed) for body in bodies(service))


def test_a_checkpoint_is_signed_when_the_log_has_grown_and_at_the_end(start: Open, world: World) -> None:
    service = start()
    assert signed_size(service) == service.durable_size == 2
    service.submit(usual(world)).result(30)
    wait_for(lambda: signed_size(service) == 4)
    last = start_and_close_with(service, world)
    assert signed_size(service) == last


def start_and_close_with(service: Service, world: World) -> int:
    """Close while something waits: the log's size then."""
    future = service.submit([world.grant(ALICE, 1_000)])
    service.close()
    (answer,) = future.result(0)
    assert answer.index is not None  # type: ignore[union-attr]
    with pytest.raises(StoppedError):
        service.submit([world.grant(ALICE, 1_000)])
    assert service.fault == "the sequencer has ended"
    return answer.index + 1  # type: ignore[union-attr]


def test_who_watches_is_told_of_each_commit_until_it_does_not_want_to_know(start: Open, world: World) -> None:
    service, told = start(beat_s=3600), Event()
    service.watch(told.set)
    service.submit(usual(world)).result(30)
    assert told.wait(30)
    service.unwatch(told.set)
    told.clear()
    service.submit([]).result(30)
    assert not told.is_set()


def test_a_ledger_without_a_genesis_does_not_start(start: Open, database: Database) -> None:
    with pytest.raises(LedgerError, match="nectar ledger init"):
        start(begins=False)
    # The sequencer's lock is free again.
    assert start(beat_s=3600).fault is None
    with pytest.raises(LockedError):
        Sequencer(database, TABLES, lambda *_: None, patience_s=0)  # type: ignore[arg-type, return-value]


def test_an_older_database_does_not_start(start: Open, world: World, place: Place) -> None:
    service = start(beat_s=3600)
    service.close()
    backup = place.back_up()
    service = start(place.open(), beat_s=3600)
    service.submit(usual(world)).result(30)
    service.close()
    with pytest.raises(ForkError, match="is published"):
        start(place.open(backup), begins=False)


def test_a_log_that_changes_while_it_runs_is_signed_no_more(start: Open, world: World, database: Database) -> None:
    service = start()
    with database.writing.begin() as connection:
        connection.execute(sa.update(log_tiles).values(hashes=bytes(64)))
    wait_for(lambda: service.fault is not None)
    assert "Nothing is signed" in str(service.fault)
    size = signed_size(service)
    service.submit(usual(world)).result(30)
    service.close()
    assert signed_size(service) == size


def test_the_tables_tell_of_a_line_whether_its_hold_is_open_or_closed(
    start: Open, world: World, clock: Clock, database: Database
) -> None:
    service, first, second = start(beat_s=3600), person("first"), person("second")
    service.submit(usual(world)).result(30)
    open_hold, closed = free_hold(service, world, first, clock), free_hold(service, world, second, clock)
    receipts: list[Settle] = [
        world.receipt(open_hold, NODE, first, 7, 5),
        world.receipt(closed, NODE, second, 3, 5, final=True),
    ]
    service.submit(receipts).result(30)
    with database.reading.begin() as connection:
        found = read_settled(connection, {open_hold.id, closed.id, bytes(32)}, {NODE.public, OWNER.public})
    assert found == {
        (open_hold.id, NODE.public): LineSettled(7, False),
        (closed.id, NODE.public): LineSettled(3, True),
    }
