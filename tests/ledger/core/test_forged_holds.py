"""Entries of holds that no ledger would have written, in a log that is replayed."""

from dataclasses import replace

import pytest
from nectar_ledger.core.machine import Draft
from nectar_ledger.core.orders import Obey
from nectar_ledger.errors import InvariantError
from nectar_protocol.commands import CloseHold, OpenHold
from nectar_protocol.entries import CloseReason, HoldClosed, HoldOpened
from nectar_protocol.entry import Body, pack_entry, seal

from tests.ledger.core.stage import (
    ALICE,
    CAP,
    LIFE_MS,
    NODE,
    SESSION,
    STRANGER,
    paid,
)
from tests.ledger.world import START_MS, Book, World, replay


def forge(book: Book, body: Body, sealed: bytes | None = None, public: bool = False) -> None:
    """The log as it is, and one entry more."""
    replay([*book.log, Draft(pack_entry(book.now_ms, body), sealed)], public)


def promised(world: World, order: Obey, **changes: object) -> tuple[HoldOpened, bytes]:
    """The hold that somebody asked for, signed without a check, and its sealed part."""
    command, sealed = order.signed.command, order.salt + order.signed.pack()
    assert isinstance(command, OpenHold)
    return HoldOpened(replace(command.hold(), **changes).signed(world.keys.holds), seal(sealed)), sealed


def test_a_hold_that_no_purse_pays_is_refused(book: Book, world: World) -> None:
    body, sealed = promised(world, world.open_hold(STRANGER, SESSION, {NODE: 1_000}, book.now_ms + LIFE_MS))
    with pytest.raises(InvariantError, match="purse"):
        forge(book, body, sealed)


def test_a_hold_without_its_sealed_request_is_refused(book: Book, world: World) -> None:
    body, _ = promised(world, world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + LIFE_MS))
    with pytest.raises(InvariantError, match="missing"):
        forge(book, body)
    forge(book, body, public=True)


def test_a_hold_that_is_not_what_was_asked_for_is_refused(book: Book, world: World) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + LIFE_MS)
    body, sealed = promised(world, order, weight=2)
    with pytest.raises(InvariantError, match="not what was asked"):
        forge(book, body, sealed)


@pytest.mark.parametrize("public", [False, True])
def test_another_ledgers_hold_is_refused(book: Book, world: World, public: bool) -> None:
    order = World(start_ms=1).open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + LIFE_MS)
    body, sealed = promised(world, order)
    with pytest.raises(InvariantError, match="another ledger"):
        forge(book, body, sealed, public)


@pytest.mark.parametrize("reason", list(CloseReason))
def test_a_hold_is_not_closed_without_its_reason(book: Book, world: World, reason: CloseReason) -> None:
    hold = paid(book, both=True)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    account = book.state.holds[hold.id].account
    asked = world.close(STRANGER, hold).signed if reason is CloseReason.ASKED else None
    body = HoldClosed(hold.id, account.id, account.balance_ucr, reason, True, asked)
    with pytest.raises(InvariantError, match="not to be closed"):
        forge(book, body)


def test_a_close_for_nothing_is_not_recorded(book: Book, world: World) -> None:
    hold = paid(book)
    account = book.state.holds[hold.id].account
    body = HoldClosed(hold.id, account.id, 0, CloseReason.ASKED, False, world.close(SESSION, hold).signed)
    with pytest.raises(InvariantError, match="gives back 0"):
        forge(book, body)


@pytest.mark.parametrize("change", [{"ledger": bytes(32)}, {"expires_ms": START_MS - 1}], ids=str)
def test_a_request_to_close_that_nobody_could_take_is_refused(
    book: Book, world: World, change: dict[str, object]
) -> None:
    hold = paid(book, both=True)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    account = book.state.holds[hold.id].account
    asked = world.obey(CloseHold, SESSION, session=SESSION.public, hold=hold.id, **change)
    with pytest.raises(InvariantError, match="the command"):
        forge(book, HoldClosed(hold.id, account.id, CAP - 6_405, CloseReason.ASKED, False, asked.signed))
