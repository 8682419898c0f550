"""Batches: how long earnings wait, and what is shown when they end."""

from dataclasses import replace

import pytest
from nectar_ledger.core import batching
from nectar_ledger.core.node import BatchState
from nectar_ledger.core.orders import Obey
from nectar_ledger.core.state import BURNED
from nectar_ledger.errors import InvariantError
from nectar_protocol.commands import Outcome
from nectar_protocol.entries import BatchClosed, BatchOutcome, VerdictSealed
from nectar_protocol.entry import Body, pack_entry, parse_entry, seal

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import (
    AUDITOR,
    EARNED_UCR,
    NODE,
    OTHER,
    OWNER,
    PROBED,
    SESSION,
    STRANGER,
    earn,
    free,
    paid,
)
from tests.ledger.world import HOUR_MS, POLICY, Book, World, person, replay

PASSED, FAILED, CONFIRMED, MISSING = Outcome
RELEASED, BURNT = BatchOutcome


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
    world, (hold, batch) = probed.world, earn(probed)
    for outcome in (PASSED, FAILED, CONFIRMED):
        probed.do(world.verdict(AUDITOR, NODE, batch, hold, outcome))
    probed.tick(PROBED.batch_ms)
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
