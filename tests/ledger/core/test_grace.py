"""Grace after a hold's expiry runs only while the ledger is up."""

import pytest
from nectar_ledger.core.loading import load
from nectar_ledger.core.orders import Resume
from nectar_ledger.core.reasons import Reason

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import (
    ALICE,
    GRACE_MS,
    NODE,
    SESSION,
    paid,
)
from tests.ledger.world import Book, World


def test_grace_does_not_run_while_the_ledger_is_down(book: Book, world: World) -> None:
    hold = paid(book)
    book.now_ms = hold.expires_ms + 1_000
    book.do(world.fund(ALICE, 1_000))
    book.now_ms += 10 * GRACE_MS
    book.do(Resume())
    book.tick()
    book.now_ms += GRACE_MS - 1_000
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    book.tick()
    assert hold.id in book.state.holds
    book.now_ms += 1
    assert book.refuse(world.receipt(hold, NODE, SESSION, 2, 20)) == Reason.HOLD_EXPIRED
    book.tick()
    assert hold.id not in book.state.holds


@pytest.mark.parametrize(
    ("down_ms", "up_ms", "longer_ms"),
    [
        (-500, 300, 300),
        (-500, -100, 0),
        (0, 300, 300),
        (1_000, 1_300, 300),
        (GRACE_MS - 1, GRACE_MS + 299, 300),
        (GRACE_MS, GRACE_MS + 300, 0),
        (-500, 20 * GRACE_MS, 20 * GRACE_MS),
    ],
)
def test_grace_is_longer_by_the_outage_that_fell_into_it(
    book: Book, world: World, down_ms: int, up_ms: int, longer_ms: int
) -> None:
    hold = paid(book)
    book.now_ms = hold.expires_ms + down_ms
    book.do(world.fund(ALICE, 1_000))
    book.now_ms = hold.expires_ms + up_ms
    book.do(Resume())
    live = book.state.holds[hold.id]
    assert book.state.grace_ends_ms(live) == hold.expires_ms + GRACE_MS + longer_ms


def test_outages_add_up(book: Book, world: World) -> None:
    hold = paid(book)
    for minute in (1, 5, 9):
        book.now_ms = hold.expires_ms + minute * 60_000
        book.do(world.fund(ALICE, 1_000))
        book.now_ms += 30_000
        book.do(Resume())
    assert book.state.grace_ends_ms(book.state.holds[hold.id]) == hold.expires_ms + GRACE_MS + 90_000


def test_a_resume_at_once_is_no_outage(book: Book) -> None:
    book.do(Resume(), Resume())
    assert book.state.outages == []


def test_an_outage_outlives_a_restart(book: Book, world: World) -> None:
    hold = paid(book)
    book.now_ms = hold.expires_ms + 5_000
    book.do(Resume())
    mirror = mirrored(book.log)
    state = load(mirror.live, len(book.log), book.now_ms)
    assert state.grace_ends_ms(state.holds[hold.id]) == book.state.grace_ends_ms(book.state.holds[hold.id])
