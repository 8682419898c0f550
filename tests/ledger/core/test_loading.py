"""A state read from its tables is the one that wrote them, and goes on as that one does."""

from dataclasses import replace

import pytest
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.orders import Order, Resume, Tick
from nectar_protocol.commands import KeyPurpose, KeyState, Outcome
from nectar_protocol.policy import Swarm

from tests.ledger.core.mirror import Mirror, mirrored, picture
from tests.ledger.core.stage import ALICE, AUDITOR, LIFE_MS, NODE, OTHER, OWNER, SESSION, STRANGER, stock
from tests.ledger.world import HOUR_MS, MODEL, POLICY, Book, World, person, replay


def reopened(book: Book) -> Book:
    """The same ledger, as a new process reads it."""
    mirror, copy = mirrored(book.log), Book(book.world)
    copy.ledger = Ledger(mirror.load(len(book.log), book.state.time_ms), book.world.keys.holds)
    copy.log, copy.now_ms = list(book.log), book.now_ms
    return copy


def a_life() -> Book:
    """A bit of everything, with everything still open."""
    world = World(replace(POLICY, probes_ppm=1))
    book = stock(Book(world))
    book.do(
        world.set_key(AUDITOR, KeyPurpose.AUDITOR),
        world.set_key(STRANGER, KeyPurpose.AUDITOR),
        world.set_key(STRANGER, KeyPurpose.AUDITOR, KeyState.REVOKED),
        world.change_payee(OTHER, OWNER, ALICE),
        world.publish_model(replace(MODEL, version=2)),
        world.publish_model(replace(MODEL, model=bytes(32))),
    )
    hold = book.open(world.open_hold(ALICE, SESSION, {NODE: 10**6, OTHER: 10**6}, book.now_ms + LIFE_MS, weight=2))
    book.open(world.extend(ALICE, hold, {NODE: 10**6, OTHER: 2 * 10**6}, hold.expires_ms))
    gift = book.open(world.open_hold(STRANGER, STRANGER, {NODE: 10**6}, book.now_ms + 60_000))
    book.do(world.receipt(hold, NODE, SESSION, 3, 100, final=True), world.receipt(hold, OTHER, SESSION, 1, 50))
    book.do(world.receipt(gift, NODE, STRANGER, 1, 10), world.close(SESSION, hold))
    (first, *_) = book.state.batches
    book.do(world.verdict(AUDITOR, NODE, first, hold, Outcome.FAILED), world.dispute(SESSION, hold, NODE))
    book.now_ms += 5_000
    book.do(Resume(), world.publish_policy(replace(world.policy, version=2, price=2_000_000)))
    late = book.open(world.open_hold(ALICE, person("late"), {NODE: 100}, book.now_ms + 1_000))
    book.do(world.receipt(late, NODE, person("late"), 1, 0, final=True))
    return book


def test_a_loaded_state_is_the_one_that_wrote_the_tables() -> None:
    book = a_life()
    assert picture(reopened(book).state) == picture(book.state)


def test_a_ledger_loaded_at_any_entry_is_the_one_that_replayed_so_far() -> None:
    book, live, mirror = a_life(), Ledger(replay([]).state), Mirror()
    for index, draft in enumerate(book.log):
        live.apply(index, draft.entry, draft.sealed)
        mirror.take(live)
        assert picture(mirror.load(index + 1, live.state.time_ms)) == picture(live.state), index


def test_a_loaded_ledger_writes_the_same_log_from_there_on() -> None:
    book = a_life()
    again, world, begun = reopened(book), book.world, len(book.log)
    hold = next(iter(book.state.holds.values())).hold
    batch = next(iter(book.state.batches))
    world.policy = replace(world.policy, version=3, swarm=Swarm.OPEN)
    orders: list[tuple[int, Order]] = [
        (1_000, world.receipt(hold, OTHER, SESSION, 9, 60)),
        (0, world.verdict(AUDITOR, NODE, batch, hold, Outcome.CONFIRMED)),
        (60_000, Tick()),
        (HOUR_MS, Tick()),
        (0, world.publish_policy(world.policy)),
        (HOUR_MS, Tick()),
        (2 * HOUR_MS, Tick()),
        (0, Tick()),
    ]
    for wait_ms, order in orders:
        for each in (book, again):
            each.now_ms += wait_ms
            each.submit(order)
    assert again.log == book.log
    assert len(book.log) > begun + 10
    assert picture(again.state) == picture(book.state)
    assert not book.state.holds


@pytest.mark.parametrize("extended", [0, 1, 2])
def test_holds_that_end_together_end_in_one_order_after_a_restart(book: Book, world: World, extended: int) -> None:
    holds = [book.open(world.open_hold(ALICE, SESSION, {NODE: 100}, book.now_ms + LIFE_MS)) for _ in range(3)]
    book.open(world.extend(ALICE, holds[extended], {NODE: 101}, book.now_ms + LIFE_MS))
    again = reopened(book)
    for each in (book, again):
        each.tick(2 * HOUR_MS)
        each.tick()
    assert again.log == book.log
    assert not book.state.holds


def test_a_public_state_knows_no_purses() -> None:
    book = a_life()
    public = replay(book.log, public=True)
    names = {name for name, _ in public.take_rows()}
    assert not names & {"purse_lines", "verdicts", "commands"} - {"commands"}
    assert all(live.purse is None for live in public.state.holds.values())
    assert all(purse.balance_ucr == 0 for purse in public.state.purses.values())
