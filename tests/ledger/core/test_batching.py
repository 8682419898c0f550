"""Batches: how long earnings wait, what verdicts do to them, and what is shown when they end."""

from dataclasses import replace

import pytest
from nectar_ledger.core import batching
from nectar_ledger.core.node import BatchState
from nectar_ledger.core.orders import Obey
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.state import BURNED
from nectar_ledger.errors import InvariantError
from nectar_protocol.commands import KeyPurpose, KeyState, Outcome
from nectar_protocol.entries import MAX_VERDICTS, BatchClosed, BatchOutcome, VerdictSealed
from nectar_protocol.entry import Body, pack_entry, parse_entry, seal
from nectar_protocol.hold import Hold
from nectar_protocol.modelentry import AuditState

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import AUDITOR, NODE, OTHER, OWNER, SESSION, STRANGER, free, name_auditor, paid, stock
from tests.ledger.world import HOUR_MS, MODEL, POLICY, Book, World, person, replay

PROBED = replace(POLICY, probes_ppm=3_000_000, batch_units=6_405)
EARNED_UCR = 6_276
PASSED, FAILED, CONFIRMED, MISSING = Outcome
RELEASED, BURNT = BatchOutcome


def earn(book: Book) -> tuple[Hold, int]:
    """A hold that has paid the node 6,276 µcr, and the number of the batch."""
    hold = paid(book)
    book.do(book.world.receipt(hold, NODE, SESSION, 1, 10))
    return hold, next(iter(book.state.nodes[NODE.public].batches.values())).account.id


@pytest.fixture
def probed() -> Book:
    book = stock(Book(World(PROBED)))
    name_auditor(book)
    return book


def judge(book: Book, *verdicts: tuple[Outcome, bytes]) -> list[BatchClosed]:
    """How a batch ends on which these verdicts were given, if it ends."""
    hold, batch = earn(book)
    for outcome, evidence in verdicts:
        book.do(book.world.verdict(AUDITOR, NODE, batch, hold, outcome, evidence))
    return [body for body in book.tick(PROBED.batch_ms) if isinstance(body, BatchClosed)]


# Without probes


def test_without_probes_a_batch_waits_its_time_alone(book: Book, world: World) -> None:
    _, batch = earn(book)
    assert book.tick(world.policy.batch_ms - 1) == []
    account = book.state.accounts[batch]
    assert book.tick(1) == [BatchClosed(batch, RELEASED, EARNED_UCR)]
    assert (book.balance_ucr(OWNER), account.balance_ucr, account.closed_index) == (EARNED_UCR, 0, len(book.log) - 1)
    assert mirrored(book.log).rows("batches")[-1][-2:] == (BatchState.RELEASED, len(book.log) - 1)


def test_the_next_receipt_opens_another_batch(book: Book, world: World) -> None:
    hold, first = earn(book)
    book.tick(world.policy.batch_ms)
    book.do(world.receipt(hold, NODE, SESSION, 2, 20))
    (batch,) = book.state.batches.values()
    assert batch.account.id > first
    assert (batch.units, batch.opened_ms) == (12_824 - 6_405, book.now_ms)


def test_a_batch_of_free_work_ends_without_a_transfer(book: Book, world: World) -> None:
    book.do(world.receipt(free(book), NODE, SESSION, 1, 10))
    (closed,) = book.tick(world.policy.batch_ms)
    assert isinstance(closed, BatchClosed)
    assert (closed.outcome, closed.amount_ucr) == (RELEASED, 0)


def test_at_most_100_batches_end_at_once_oldest_first(book: Book, world: World) -> None:
    nodes = [person(f"node {n}") for n in range(102)]
    book.do(*(world.bind(node, OWNER) for node in nodes))
    hold = book.open(world.open_hold(SESSION, SESSION, dict.fromkeys(nodes, 10_000), book.now_ms + 1_000))
    book.do(*(world.receipt(hold, node, SESSION, 1, 1) for node in nodes))
    ids = list(book.state.batches)
    closed = book.tick(world.policy.batch_ms)
    assert len(closed) == batching.MAX_CLOSED_AT_ONCE == 100
    closed += book.tick()
    assert [body.account for body in closed if isinstance(body, BatchClosed)] == ids


def test_a_batch_keeps_the_policy_it_was_opened_under(book: Book, world: World) -> None:
    _, batch = earn(book)
    book.do(world.publish_policy(replace(PROBED, version=2, batch_ms=10 * HOUR_MS)))
    assert book.tick(POLICY.batch_ms) == [BatchClosed(batch, RELEASED, EARNED_UCR)]


def test_a_batch_is_of_the_policy_in_force_not_of_its_holds(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.publish_policy(replace(PROBED, version=2)), world.receipt(hold, NODE, SESSION, 1, 10))
    (batch,) = book.state.batches.values()
    assert batch.policy.version == 2
    assert book.tick(PROBED.batch_ms) == []


# Verdicts


def test_with_probes_a_batch_waits_for_a_verdict(probed: Book) -> None:
    assert judge(probed) == []
    assert probed.tick(1) == []


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ([(PASSED, b"1")], RELEASED),
        ([(PASSED, b"1"), (PASSED, b"2"), (PASSED, b"1")], RELEASED),
        ([(FAILED, b"1")], None),
        ([(FAILED, b"1"), (PASSED, b"2")], None),
        ([(FAILED, b"1"), (PASSED, b"1")], RELEASED),
        ([(FAILED, b"1"), (CONFIRMED, b"1")], BURNT),
        ([(PASSED, b"2"), (FAILED, b"1"), (CONFIRMED, b"1"), (PASSED, b"3")], BURNT),
        ([(FAILED, b"1"), (CONFIRMED, b"2")], None),
        ([(CONFIRMED, b"1")], BURNT),
        ([(MISSING, b"1")], BURNT),
        ([(PASSED, b"1"), (MISSING, b"2")], BURNT),
        ([(MISSING, b"1"), (FAILED, b"2")], None),
    ],
    ids=str,
)
def test_what_verdicts_do_to_a_batch(
    probed: Book, verdicts: list[tuple[Outcome, bytes]], outcome: BatchOutcome | None
) -> None:
    closed = judge(probed, *verdicts)
    assert [body.outcome for body in closed] == ([] if outcome is None else [outcome])
    owner_ucr = EARNED_UCR if outcome is RELEASED else 0
    burned_ucr = 129 + (EARNED_UCR if outcome is BURNT else 0)
    assert (probed.balance_ucr(OWNER), probed.state.accounts[BURNED].balance_ucr) == (owner_ucr, burned_ucr)


@pytest.mark.parametrize("outcome", [CONFIRMED, MISSING])
def test_verdicts_on_a_model_in_shadow_burn_nothing(outcome: Outcome) -> None:
    book = stock(Book(World(PROBED, replace(MODEL, state=AuditState.SHADOW))))
    name_auditor(book)
    (closed,) = judge(book, (outcome, b"1"))
    assert (closed.outcome, len(closed.verdicts)) == (RELEASED, 1)


@pytest.mark.parametrize(("last", "outcome"), [(AuditState.SHADOW, RELEASED), (AuditState.ENFORCED, BURNT)])
def test_the_newest_entry_of_a_model_says_whether_verdicts_count(last: AuditState, outcome: BatchOutcome) -> None:
    other = AuditState.ENFORCED if last is AuditState.SHADOW else AuditState.SHADOW
    book = stock(Book(World(PROBED, replace(MODEL, state=other))))
    name_auditor(book)
    hold, batch = earn(book)
    book.do(book.world.verdict(AUDITOR, NODE, batch, hold, MISSING))
    book.do(book.world.publish_model(replace(MODEL, version=2, state=last)))
    (closed,) = book.tick(PROBED.batch_ms)
    assert isinstance(closed, BatchClosed)
    assert closed.outcome is outcome


def test_a_batch_with_less_than_its_units_waits_for_more(probed: Book) -> None:
    world, hold = probed.world, paid(probed)
    probed.do(world.receipt(hold, NODE, SESSION, 1, 9))
    ((batch, opened),) = probed.state.batches.items()
    probed.do(world.verdict(AUDITOR, NODE, batch, hold, PASSED))
    assert probed.tick(10 * PROBED.batch_ms) == []
    probed.do(world.receipt(hold, NODE, SESSION, 2, 10))
    assert opened.units == PROBED.batch_units
    assert len(probed.tick()) == 1


def test_verdicts_wait_for_a_batchs_time(probed: Book) -> None:
    hold, batch = earn(probed)
    probed.do(probed.world.verdict(AUDITOR, NODE, batch, hold, PASSED))
    assert probed.tick(PROBED.batch_ms - 1) == []
    assert len(probed.tick(1)) == 1


def test_only_auditors_judge(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    assert probed.refuse(world.verdict(STRANGER, NODE, batch, hold, PASSED)) == Reason.NOT_AUTHORIZED
    assert probed.refuse(world.verdict(world.keys.operator, NODE, batch, hold, PASSED)) == Reason.NOT_AUTHORIZED
    probed.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR, KeyState.REVOKED))
    assert probed.refuse(world.verdict(AUDITOR, NODE, batch, hold, PASSED)) == Reason.NOT_AUTHORIZED


def test_what_an_auditor_said_counts_after_its_key_is_revoked(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    probed.do(world.verdict(AUDITOR, NODE, batch, hold, MISSING))
    probed.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR, KeyState.REVOKED))
    (closed,) = probed.tick(PROBED.batch_ms)
    assert isinstance(closed, BatchClosed)
    assert closed.outcome is BURNT
    replay(probed.log, public=True)


def test_a_verdict_is_on_an_open_batch_of_its_node_and_model(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    assert probed.refuse(world.verdict(AUDITOR, OTHER, batch, hold, PASSED)) == Reason.UNKNOWN_BATCH
    assert probed.refuse(world.verdict(AUDITOR, STRANGER, batch, hold, PASSED)) == Reason.UNKNOWN_BATCH
    assert probed.refuse(world.verdict(AUDITOR, NODE, batch + 1, hold, PASSED)) == Reason.UNKNOWN_BATCH
    assert probed.refuse(world.verdict(AUDITOR, NODE, 1, hold, PASSED)) == Reason.UNKNOWN_BATCH
    probed.do(world.publish_model(replace(MODEL, model=bytes(32))))
    world.model = replace(MODEL, model=bytes(32))
    assert probed.refuse(world.verdict(AUDITOR, NODE, batch, paid(probed), PASSED)) == Reason.UNKNOWN_BATCH
    closed = replace(hold, id=bytes(32))
    probed.do(world.verdict(AUDITOR, NODE, batch, closed, PASSED))
    probed.tick(PROBED.batch_ms)
    assert probed.refuse(world.verdict(AUDITOR, NODE, batch, hold, PASSED)) == Reason.UNKNOWN_BATCH


def test_a_batch_has_at_most_64_verdicts_and_its_closing_fits_into_an_entry(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    for number in range(MAX_VERDICTS):
        probed.do(world.verdict(AUDITOR, NODE, batch, hold, PASSED, bytes([number])))
    assert probed.refuse(world.verdict(AUDITOR, NODE, batch, hold, FAILED)) == Reason.BATCH_FULL
    (closed,) = probed.tick(PROBED.batch_ms)
    assert isinstance(closed, BatchClosed)
    assert len(closed.verdicts) == MAX_VERDICTS
    assert len(probed.log[-1].entry) < 65_536


# What is public


def test_a_verdict_is_sealed_until_its_batch_closes(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    order = world.verdict(AUDITOR, NODE, batch, hold, PASSED)
    probed.do(order)
    draft, sealed = probed.log[-1], order.salt + order.signed.pack()
    assert draft.sealed == sealed
    assert parse_entry(draft.entry).body == VerdictSealed(seal(sealed))
    assert len(draft.entry) == 12 + 32
    index = len(probed.log) - 1
    assert probed.tick(PROBED.batch_ms) == [BatchClosed(batch, RELEASED, EARNED_UCR, ((index, sealed),))]
    assert probed.state.seals == {}


def test_the_public_sees_that_a_closing_shows_what_was_sealed(probed: Book) -> None:
    judge(probed, (PASSED, b"1"), (FAILED, b"1"), (CONFIRMED, b"1"))
    public = replay(probed.log, public=True)
    assert public.state.seals == {}
    assert public.state.accounts[BURNED].balance_ucr == probed.state.accounts[BURNED].balance_ucr


# Logs that nobody would have decided


def forge(book: Book, body: Body, public: bool = False) -> None:
    ledger = replay(book.log, public)
    ledger.apply(len(book.log), pack_entry(book.now_ms, body))


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        BatchClosed(99, RELEASED, EARNED_UCR),
        BatchClosed(0, RELEASED, EARNED_UCR - 1),
        BatchClosed(0, BURNT, EARNED_UCR),
    ],
    ids=["another account", "another amount", "another outcome"],
)
def test_a_batch_does_not_end_otherwise(book: Book, body: BatchClosed, public: bool) -> None:
    _, batch = earn(book)
    book.now_ms += POLICY.batch_ms
    with pytest.raises(InvariantError):
        forge(book, replace(body, account=body.account or batch), public)
    forge(book, BatchClosed(batch, RELEASED, EARNED_UCR), public)


@pytest.mark.parametrize("public", [False, True])
def test_a_batch_does_not_end_early(book: Book, public: bool) -> None:
    _, batch = earn(book)
    with pytest.raises(InvariantError, match="not to be released"):
        forge(book, BatchClosed(batch, RELEASED, EARNED_UCR), public)


def given(book: Book, *orders: Obey) -> list[tuple[int, bytes]]:
    """Give verdicts: where and how they are sealed."""
    answers = book.do(*orders)
    parts = (order.salt + order.signed.pack() for order in orders)
    return [(answer.index, sealed) for answer, sealed in zip(answers, parts, strict=True) if answer.index is not None]


@pytest.mark.parametrize("public", [False, True])
def test_a_closing_shows_the_verdicts_that_were_sealed(probed: Book, public: bool) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    first, second = given(probed, *(world.verdict(AUDITOR, NODE, batch, hold, PASSED, e) for e in (b"1", b"2")))
    probed.now_ms += PROBED.batch_ms
    other = (first[0], second[1])
    unknown = (second[0] - 2, first[1])
    for shown in ((other,), (unknown, first), ()):
        with pytest.raises(InvariantError):
            forge(probed, BatchClosed(batch, RELEASED, EARNED_UCR, shown), public)
    forge(probed, BatchClosed(batch, RELEASED, EARNED_UCR, (first, second)), public)


def test_who_keeps_the_sealed_parts_sees_a_verdict_left_out(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    passed, _ = given(
        probed, world.verdict(AUDITOR, NODE, batch, hold, PASSED), world.verdict(AUDITOR, NODE, batch, hold, MISSING)
    )
    probed.now_ms += PROBED.batch_ms
    with pytest.raises(InvariantError, match="leaves out"):
        forge(probed, BatchClosed(batch, RELEASED, EARNED_UCR, (passed,)))


def test_the_public_takes_no_verdict_of_a_stranger_or_on_another_node(probed: Book) -> None:
    world, (hold, batch) = probed.world, earn(probed)
    elsewhere = World(PROBED, start_ms=1)
    for order in (
        world.verdict(STRANGER, NODE, batch, hold, PASSED),
        world.verdict(AUDITOR, OTHER, batch, hold, PASSED),
        world.verdict(AUDITOR, NODE, batch + 1, hold, PASSED),
        elsewhere.verdict(AUDITOR, NODE, batch, hold, PASSED),
        world.fund(STRANGER, 1_000),
    ):
        ledger, sealed = replay(probed.log, public=True), order.salt + order.signed.pack()
        index, later_ms = len(probed.log), probed.now_ms + PROBED.batch_ms
        ledger.apply(index, pack_entry(later_ms, VerdictSealed(seal(sealed))))
        with pytest.raises(InvariantError):
            ledger.apply(index + 1, pack_entry(later_ms, BatchClosed(batch, RELEASED, EARNED_UCR, ((index, sealed),))))
