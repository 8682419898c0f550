"""One sequencer on both engines: what it answers is durable, whole, and the same when asked again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Event

import pytest
import sqlalchemy as sa
from nectar_ledger.core.machine import Answer, Outcome, Rejected
from nectar_ledger.errors import FullError, LedgerError, LockedError, NotRecordedError, StoppedError
from nectar_ledger.store.database import Database
from nectar_ledger.store.inbox import MAX_WAITING_BATCHES
from nectar_ledger.store.schema import log_head
from nectar_ledger.store.sequencer import MAX_BATCH_COMMANDS, Sequencer
from nectar_ledger.store.versions import migrate

from tests.ledger.auditing import audit
from tests.ledger.engines import Place
from tests.ledger.till import ENTRY, TABLES, Command, Fault, Payment, Till, Total

ID = bytes(range(16))
Start = Callable[..., Sequencer[Command]]


class Clock:
    """A clock that can be stopped: while it is, the sequencer is in the middle of a group."""

    def __init__(self) -> None:
        self.now_ms = 1000
        self.asked, self.goes = Event(), Event()
        self.goes.set()

    def __call__(self) -> int:
        self.asked.set()
        assert self.goes.wait(30)
        return self.now_ms

    def stop(self) -> None:
        self.asked.clear()
        self.goes.clear()


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    clock.goes.set()


@pytest.fixture
def start(database: Database, clock: Clock) -> Iterator[Start]:
    """Starts sequencers that do not end the process when they must halt."""
    started: list[Sequencer[Command]] = []

    def start(halt: Callable[[], None] = lambda: None) -> Sequencer[Command]:
        started.append(Sequencer(database, TABLES, Till, clock, halt, patience_s=0))
        return started[-1]

    yield start
    clock.goes.set()
    for sequencer in started:
        sequencer.close()


def answers(sequencer: Sequencer[Command], *commands: Command) -> list[Outcome]:
    return sequencer.submit(commands).result(30)


def grouped(sequencer: Sequencer[Command], clock: Clock, *batches: Sequence[Command]) -> list["Future[list[Outcome]]"]:
    """Have `batches` taken together: they come while an empty one is written."""
    clock.stop()
    sequencer.submit(())
    assert clock.asked.wait(30)
    futures = [sequencer.submit(batch) for batch in batches]
    clock.goes.set()
    return futures


def test_each_command_of_a_batch_has_its_answer(start: Start, database: Database) -> None:
    sequencer = start()
    assert answers(sequencer, Total(1, 1, 100), Total(1, 1, 100), Total(1, 2, 50), Payment(ID, 1, 2, 30)) == [
        Answer(0, b"settled"),
        Answer(None, b"superseded"),
        Rejected("total", "a total never falls"),
        Answer(1, b"paid"),
    ]
    assert audit(database).tables["till_accounts"] == {(1,): (1, 100, 30, ID), (2,): (2, 30, 0, ID)}


def test_a_machine_goes_on_where_the_tables_end(start: Start, database: Database) -> None:
    sequencer = start()
    answers(sequencer, Total(1, 3, 100))
    sequencer.close()
    assert answers(start(), Total(1, 2, 80), Total(1, 4, 120)) == [Answer(None, b"superseded"), Answer(1, b"settled")]
    assert audit(database).tables["till_lines"] == {(1,): (1, 4, 120)}


def test_a_command_sent_again_has_the_answer_that_it_had(start: Start, clock: Clock, database: Database) -> None:
    sequencer = start()
    answers(sequencer, Total(1, 1, 100))
    first, again = grouped(sequencer, clock, [Payment(ID, 1, 2, 30), Payment(ID, 1, 2, 30)], [Payment(ID, 1, 2, 30)])
    assert first.result() == [Answer(1, b"paid")] * 2
    assert again.result() == [Answer(1, b"paid")]
    sequencer.close()
    assert answers(start(), Payment(ID, 1, 2, 30)) == [Answer(1, b"paid")]
    assert audit(database).size == 2


def test_an_id_belongs_to_one_body(start: Start, database: Database) -> None:
    sequencer = start()
    answers(sequencer, Total(1, 1, 100), Payment(ID, 1, 2, 30))
    (outcome,) = answers(sequencer, Payment(ID, 1, 2, 31))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "conflict"
    assert audit(database).size == 2


def test_a_commit_that_fails_leaves_nothing_behind(start: Start, database: Database) -> None:
    sequencer, failures = start(), iter([True])

    def fail_once(connection: sa.Connection) -> None:
        if next(failures, False):
            raise RuntimeError("no room for a commit")

    # Of the class, since the sequencer's connection may be of an engine of its own.
    sa.event.listen(sa.Engine, "commit", fail_once)
    with pytest.raises(NotRecordedError):
        answers(sequencer, Total(1, 1, 100))
    sa.event.remove(sa.Engine, "commit", fail_once)
    assert answers(sequencer, Total(1, 1, 100)) == [Answer(0, b"settled")]
    assert audit(database).size == 1


def test_what_was_rejected_may_be_tried_again_under_its_id(start: Start) -> None:
    sequencer = start()
    assert answers(sequencer, Payment(ID, 1, 2, 30)) == [Rejected("funds", "not enough")]
    assert answers(sequencer, Total(1, 1, 100), Payment(ID, 1, 2, 30))[1] == Answer(1, b"paid")


def test_log_time_never_falls(start: Start, clock: Clock, database: Database) -> None:
    sequencer = start()
    answers(sequencer, Total(1, 1, 1))
    clock.now_ms = 10
    answers(sequencer, Total(1, 2, 2))
    sequencer.close()
    sequencer = start()
    answers(sequencer, Total(1, 3, 3))
    clock.now_ms = 2000
    answers(sequencer, Total(1, 4, 4))
    audit(database)
    with database.reading.begin() as connection:
        entries = connection.execute(sa.text("SELECT entry FROM log_entries ORDER BY idx")).scalars()
        assert [ENTRY.unpack(entry)[1] for entry in entries] == [1000, 1000, 1000, 2000]


def test_all_that_waits_is_one_commit(start: Start, clock: Clock, database: Database) -> None:
    sequencer = start()
    sizes: list[int] = []

    def count(connection: sa.Connection, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("UPDATE log_head"):
            sizes.append(1)

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        futures = grouped(sequencer, clock, *([Total(line, 1, 1)] for line in range(40)))
        assert [future.result(30) for future in futures] == [[Answer(line, b"settled")] for line in range(40)]
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    assert len(sizes) == 1
    assert audit(database).size == 40


@pytest.mark.parametrize("where", ["decide", "table"])
def test_a_fault_costs_its_own_batch_and_no_other(start: Start, clock: Clock, database: Database, where: str) -> None:
    sequencer = start()
    before, bad, after = grouped(
        sequencer, clock, [Total(1, 1, 10)], [Total(2, 1, 10), Fault(where)], [Total(1, 2, 20), Total(2, 1, 30)]
    )
    assert before.result(30) == [Answer(0, b"settled")]
    with pytest.raises(NotRecordedError, match="send it again"):
        bad.result(30)
    assert after.result(30) == [Answer(1, b"settled"), Answer(2, b"settled")]
    assert audit(database).tables["till_lines"] == {(1,): (1, 2, 20), (2,): (2, 1, 30)}


def test_who_finds_the_inbox_full_learns_when_to_come_back(start: Start, clock: Clock, database: Database) -> None:
    sequencer = start()
    futures = grouped_until_full(sequencer, clock)
    with pytest.raises(FullError, match="send it again in 1 s") as refused:
        sequencer.submit([Total(999, 1, 1)])
    assert refused.value.retry_after_s == 1
    clock.goes.set()
    assert all(isinstance(future.result(30)[0], Answer) for future in futures)
    assert audit(database).size == MAX_WAITING_BATCHES


def grouped_until_full(sequencer: Sequencer[Command], clock: Clock) -> list["Future[list[Outcome]]"]:
    clock.stop()
    sequencer.submit(())
    assert clock.asked.wait(30)
    return [sequencer.submit([Total(line, 1, 1)]) for line in range(MAX_WAITING_BATCHES)]


def test_others_see_the_machine_and_how_much_of_it_is_committed(start: Start) -> None:
    sequencer = start()
    before = sequencer.machine
    answers(sequencer, Total(1, 1, 10))
    assert (sequencer.machine, sequencer.durable_size) == (before, 1)
    with pytest.raises(NotRecordedError):
        answers(sequencer, Total(1, 2, 20), Fault("table"))
    assert sequencer.machine is not before
    assert sequencer.durable_size == 1
    assert sequencer.is_running
    sequencer.close()
    assert not sequencer.is_running


def test_a_batch_has_a_bound(start: Start) -> None:
    with pytest.raises(LedgerError, match="at most 1000"):
        start().submit([Total(1, 1, 1)] * (MAX_BATCH_COMMANDS + 1))


def test_a_cancelled_batch_is_not_recorded(start: Start, clock: Clock, database: Database) -> None:
    sequencer = start()
    clock.stop()
    sequencer.submit(())
    assert clock.asked.wait(30)
    cancelled, kept = sequencer.submit([Total(1, 1, 1)]), sequencer.submit([Total(2, 1, 1)])
    assert cancelled.cancel()
    clock.goes.set()
    assert kept.result(30) == [Answer(0, b"settled")]
    assert audit(database).seq(1) == 0


def test_closing_records_what_waits(start: Start, clock: Clock, database: Database) -> None:
    sequencer = start()
    (future,) = grouped(sequencer, clock, [Total(1, 1, 1)])
    sequencer.close()
    assert future.result(0) == [Answer(0, b"settled")]
    with pytest.raises(StoppedError, match="once the ledger is back"):
        sequencer.submit([Total(1, 2, 2)])


def test_a_second_sequencer_refuses_to_start(start: Start, place: Place) -> None:
    sequencer = start()
    with pytest.raises(LockedError, match="there can only be one"):
        start()
    with pytest.raises(LockedError):
        Sequencer(place.open(), TABLES, Till, patience_s=0)
    with pytest.raises(LockedError):
        migrate(place.open(), patience_s=0)
    sequencer.close()
    assert answers(start(), Total(1, 1, 1)) == [Answer(0, b"settled")]


def test_a_broken_fence_stops_the_sequencer_before_anybody_is_answered(
    start: Start, clock: Clock, database: Database
) -> None:
    halts: list[bool] = []
    futures: list[Future[list[Outcome]]] = []
    sequencer = start(lambda: halts.append(any(future.done() for future in futures)))
    answers(sequencer, Total(1, 1, 1))
    with database.writing.begin() as connection:
        connection.execute(sa.update(log_head).values(size=2))
    futures += grouped(sequencer, clock, [Total(1, 2, 2)], [Total(2, 1, 1)])
    for future in futures:
        with pytest.raises(StoppedError):
            future.result(30)
    assert halts == [False]
    with pytest.raises(StoppedError):
        sequencer.submit([Total(1, 3, 3)])


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_lost_connection_stops_the_sequencer(start: Start, database: Database) -> None:
    halted = Event()
    sequencer = start(halted.set)
    answers(sequencer, Total(1, 1, 1))
    with database.writing.begin() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    with pytest.raises(StoppedError):
        answers(sequencer, Total(1, 2, 2))
    assert halted.is_set()
    assert audit(database).seq(1) == 1
