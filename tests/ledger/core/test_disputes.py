"""Disputes: a session tells on a node, and the ledger writes it down."""

from dataclasses import replace

from nectar_ledger.core.reasons import Reason

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import ALICE, NODE, SESSION, STRANGER, paid
from tests.ledger.world import Book, World


def test_a_dispute_is_recorded_and_moves_nothing(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    transfers = mirrored(book.log).rows("transfers")
    order = world.dispute(SESSION, hold, NODE)
    book.do(order)
    assert book.bodies()[-1] == order.signed
    mirror = mirrored(book.log)
    assert mirror.rows("disputes") == [(len(book.log) - 1, hold.id, 1, SESSION.public, bytes(32))]
    assert mirror.rows("transfers") == transfers


def test_an_open_holds_session_disputes_and_nobody_else(book: Book, world: World) -> None:
    hold = paid(book)
    for other in (ALICE, NODE, STRANGER):
        assert book.refuse(world.dispute(other, hold, NODE)) == Reason.NOT_AUTHORIZED


def test_a_dispute_names_a_node_of_the_ledger(book: Book, world: World) -> None:
    assert book.refuse(world.dispute(SESSION, paid(book), STRANGER)) == Reason.UNKNOWN_NODE


def test_a_hold_that_is_not_open_any_more_may_be_disputed(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True), world.dispute(SESSION, hold, NODE))
    book.do(world.dispute(STRANGER, replace(hold, id=bytes(32)), NODE))
