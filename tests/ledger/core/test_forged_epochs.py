"""Emissions and books that no ledger would have written, in a log that is replayed."""

from dataclasses import replace

import pytest
from nectar_ledger.errors import InvariantError
from nectar_protocol.entries import EmissionTo, Emitted, EpochClosed
from nectar_protocol.entry import pack_entry

from tests.ledger.core.stage import (
    ALICE,
    NODE,
    OTHER,
    STRANGER,
    serve_free,
)
from tests.ledger.world import HOUR_MS, Book, replay


def due(book: Book, wait_ms: int = HOUR_MS) -> list[Emitted | EpochClosed]:
    """What a tick would write, which is not written."""
    copy = Book(book.world)
    copy.ledger, copy.log, copy.now_ms = replay(book.log), list(book.log), book.now_ms
    return [body for body in copy.tick(wait_ms) if isinstance(body, Emitted | EpochClosed)]


def forge(book: Book, *bodies: Emitted | EpochClosed, wait_ms: int = HOUR_MS) -> None:
    for public in (True, False):
        ledger = replay(book.log, public)
        for index, body in enumerate(bodies, len(book.log)):
            ledger.apply(index, pack_entry(book.now_ms + wait_ms, body))


def test_an_epoch_does_not_end_or_emit_early(book: Book) -> None:
    serve_free(book, NODE, 10)
    emitted, books = due(book)
    forge(book, emitted, books)
    with pytest.raises(InvariantError, match="before its time"):
        forge(book, books, wait_ms=HOUR_MS - 1)
    with pytest.raises(InvariantError, match="does not end"):
        forge(book, emitted, wait_ms=HOUR_MS - 1)


def test_an_epoch_does_not_end_without_a_share_that_is_due(book: Book) -> None:
    serve_free(book, NODE, 10)
    serve_free(book, OTHER, 10)
    emitted, books = due(book)
    assert isinstance(emitted, Emitted)
    assert isinstance(books, EpochClosed)
    one = emitted.shares[0]
    less = replace(books, emitted_ucr=books.emitted_ucr - 6_405, wallets_ucr=books.wallets_ucr - 6_405)
    with pytest.raises(InvariantError, match="all that it emits"):
        forge(book, replace(emitted, shares=(one,)), less)


@pytest.mark.parametrize(
    "change", [{"amount_ucr": 6_404}, {"amount_ucr": 6_406}, {"units": 6_404}, {"account": ALICE.public},
               {"earner": OTHER.public}, {"earner": STRANGER.public}], ids=str,
)  # fmt: skip
def test_a_share_that_is_not_due_is_refused(book: Book, change: dict[str, object]) -> None:
    serve_free(book, NODE, 10)
    emitted, _ = due(book)
    assert isinstance(emitted, Emitted)
    with pytest.raises(InvariantError, match="not due"):
        forge(book, replace(emitted, shares=(replace(emitted.shares[0], **change),)))


def test_a_share_is_not_given_twice(book: Book) -> None:
    serve_free(book, NODE, 10)
    emitted, _ = due(book)
    with pytest.raises(InvariantError, match="not due"):
        forge(book, emitted, emitted)
    assert isinstance(emitted, Emitted)
    with pytest.raises(InvariantError, match="not due"):
        forge(book, replace(emitted, shares=emitted.shares * 2))


def test_emission_of_another_epoch_or_kind_is_refused(book: Book) -> None:
    serve_free(book, NODE, 10)
    emitted, _ = due(book)
    assert isinstance(emitted, Emitted)
    for wrong in (replace(emitted, epoch=2), replace(emitted, to=EmissionTo.PURSES)):
        with pytest.raises(InvariantError, match="does not end"):
            forge(book, wrong)


def test_books_that_are_not_the_ledgers_are_refused(book: Book) -> None:
    (books,) = due(book)
    assert isinstance(books, EpochClosed)
    for wrong in (
        replace(books, number=2),
        replace(books, started_ms=books.started_ms - 1),
        replace(books, free_units=1),
        replace(books, emitted_ucr=books.emitted_ucr + 1, burned_ucr=1),
        replace(books, pool_ucr=books.pool_ucr - 1, wallets_ucr=books.wallets_ucr + 1),
        replace(books, pool_ucr=books.pool_ucr - 1, holds_ucr=1),
        replace(books, pool_ucr=books.pool_ucr - 1, batches_ucr=1),
    ):
        with pytest.raises(InvariantError, match="not those of its epoch"):
            forge(book, wrong)


def test_a_pool_that_purses_do_not_add_up_to_is_found_when_an_epoch_ends(book: Book) -> None:
    book.state.purse(book.state.wallets[ALICE.public]).credits += 1
    with pytest.raises(InvariantError, match="all purses together"):
        book.tick(HOUR_MS)
