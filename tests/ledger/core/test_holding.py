"""Holds: who may open and extend them, what they set aside, and when it comes back."""

from dataclasses import replace

import pytest
from nectar_ledger.core.holding import MAX_CLOSED_AT_ONCE, MAX_OPEN_HOLDS
from nectar_ledger.core.machine import Rejected
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.state import POOL
from nectar_protocol.entries import CloseReason, HoldClosed
from nectar_protocol.hold import SignedHold
from nectar_protocol.record import MAX_COUNT

from tests.ledger.core.stage import (
    ALICE,
    CAP,
    GRACE_MS,
    LIFE_MS,
    NODE,
    OTHER,
    PURSE_UCR,
    SESSION,
    STRANGER,
    free,
    paid,
    stock,
)
from tests.ledger.world import HOUR_MS, POLICY, Book, World, person

# Opening


def test_a_hold_sets_aside_all_caps_at_their_price_and_weight(book: Book, world: World) -> None:
    hold = book.open(world.open_hold(ALICE, SESSION, {NODE: 1_000, OTHER: 501}, book.now_ms + LIFE_MS, weight=4))
    live = book.state.holds[hold.id]
    assert live.account.balance_ucr == 4 * 1_501
    assert book.state.accounts[POOL].balance_ucr == book.purse_ucr(ALICE) == PURSE_UCR - 4 * 1_501
    assert (live.payer, live.purse and live.purse.holds) == (ALICE.public, 1)


def test_the_answer_is_the_hold_that_the_ledger_signed(book: Book, world: World) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + LIFE_MS)
    first, again = book.do(order, order)
    assert first == again
    signed = SignedHold.unpack(first.response)
    signed.verify(world.keys.holds.public)
    assert (signed.hold.id, signed.hold.ledger) == (order.signed.command.body_hash, world.ledger)


def test_a_hold_is_opened_once(book: Book, world: World) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + LIFE_MS)
    book.open(order)
    # Its command ID would have told; here nobody asks by it.
    outcome = book.ledger.decide(order, book.now_ms)
    assert isinstance(outcome, Rejected)
    assert outcome.code == Reason.CONFLICT


def test_each_line_is_rounded_down_by_itself(world: World) -> None:
    world = World(replace(POLICY, price=1_500_000, hold_least_ucr=0))
    book = stock(Book(world))
    hold = book.open(world.open_hold(ALICE, SESSION, {NODE: 1, OTHER: 3}, book.now_ms + LIFE_MS))
    assert book.state.holds[hold.id].account.balance_ucr == 1 + 4


@pytest.mark.parametrize("life_ms", [0, -1, LIFE_MS + 1])
def test_a_hold_ends_soon_but_not_before_it_begins(book: Book, world: World, life_ms: int) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + life_ms)
    assert book.refuse(order) == Reason.WRONG_EXPIRY


@pytest.mark.parametrize("life_ms", [1, LIFE_MS])
def test_a_hold_may_last_from_a_moment_to_the_policys_limit(book: Book, world: World, life_ms: int) -> None:
    assert book.open(world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + life_ms))


def test_nodes_of_a_hold_are_bound_to_payees(book: Book, world: World) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: 1_000, STRANGER: 1_000}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.UNKNOWN_NODE


def test_a_hold_is_paid_from_the_purse_alone(book: Book, world: World) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: PURSE_UCR + 1}, book.now_ms + LIFE_MS)
    assert book.balance_ucr(ALICE) == PURSE_UCR
    assert book.refuse(order) == Reason.INSUFFICIENT_FUNDS
    assert paid(book, cap=PURSE_UCR)
    assert book.purse_ucr(ALICE) == 0


def test_who_never_funded_a_purse_opens_no_paid_hold(book: Book, world: World) -> None:
    order = world.open_hold(STRANGER, SESSION, {NODE: 1}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.INSUFFICIENT_FUNDS


def test_a_paid_hold_has_a_least_amount() -> None:
    world = World(replace(POLICY, hold_least_ucr=500))
    book = stock(Book(world))
    order = world.open_hold(ALICE, SESSION, {NODE: 499}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.WRONG_AMOUNT
    assert paid(book, cap=500)
    assert free(book, cap=1)


def test_a_hold_sets_aside_at_most_what_an_amount_can_be(book: Book, world: World) -> None:
    order = world.open_hold(ALICE, SESSION, {NODE: MAX_COUNT, OTHER: 1}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.WRONG_AMOUNT
    order = world.open_hold(ALICE, SESSION, {NODE: MAX_COUNT}, book.now_ms + LIFE_MS, weight=8)
    assert book.refuse(order) == Reason.WRONG_AMOUNT


def test_a_hold_of_the_largest_amount_is_settled_to_its_last_microcredit() -> None:
    world = World(replace(POLICY, grants_ucr=MAX_COUNT, fee_ppm=1, purse_step_ucr=1))
    book = stock(Book(world))
    rest_ucr = MAX_COUNT - 2 * PURSE_UCR
    book.do(world.grant(ALICE, rest_ucr), world.fund(ALICE, rest_ucr + PURSE_UCR))
    hold = paid(book, cap=MAX_COUNT)
    assert book.purse_ucr(ALICE) == 0
    book.do(world.receipt(hold, NODE, SESSION, 1, 100_000_000, final=True))
    units = 100_000_000 * 640 + 100_000_000 * 99_999_999 // 2 * 128 // 1000
    assert book.pending_ucr(NODE) == units * 999_999 // 1_000_000
    assert book.purse_ucr(ALICE) == MAX_COUNT - units
    book.tick(HOUR_MS)


def test_free_holds_have_no_payer_and_a_small_cap(book: Book, world: World) -> None:
    cap = world.policy.free_cap_units
    order = world.open_hold(SESSION, SESSION, {NODE: cap, OTHER: cap + 1}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.WRONG_CAP
    hold = free(book, cap=cap)
    live = book.state.holds[hold.id]
    assert (live.account.balance_ucr, live.purse, live.payer) == (0, None, SESSION.public)


def test_one_purse_has_at_most_10_000_open_holds(book: Book, world: World) -> None:
    holds = [paid(book, cap=10) for _ in range(3)]
    purse = book.state.purses[book.state.wallets[ALICE.public].id]
    assert purse.holds == 3
    purse.holds = MAX_OPEN_HOLDS
    order = world.open_hold(ALICE, SESSION, {NODE: 10}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.TOO_MANY_HOLDS
    book.open(world.extend(ALICE, holds[0], {NODE: 11}, holds[0].expires_ms))
    assert free(book)
    book.do(world.receipt(holds[1], NODE, SESSION, 1, 0, final=True), order)


@pytest.mark.slow
def test_10_000_open_holds_are_settled_and_expire(book: Book, world: World) -> None:
    holds = [paid(book, cap=1_000) for _ in range(MAX_OPEN_HOLDS)]
    order = world.open_hold(ALICE, SESSION, {NODE: 10}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.TOO_MANY_HOLDS
    book.do(*(world.receipt(hold, NODE, SESSION, 1, 1, final=n % 2 == 0) for n, hold in enumerate(holds)))
    assert len(book.state.holds) == MAX_OPEN_HOLDS // 2
    book.tick(HOUR_MS)
    book.tick(LIFE_MS + 1)
    while book.state.holds:
        book.tick()
    assert book.purse_ucr(ALICE) == PURSE_UCR - MAX_OPEN_HOLDS * 640


# What comes back


def test_the_last_final_receipt_closes_a_hold(book: Book, world: World) -> None:
    hold = paid(book, both=True)
    account = book.state.holds[hold.id].account
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    assert hold.id in book.state.holds
    book.do(world.receipt(hold, OTHER, SESSION, 1, 0, final=True))
    closed = book.bodies()[-1]
    assert closed == HoldClosed(hold.id, account.id, 2 * CAP - 6_405, CloseReason.FINAL, True)
    assert (account.balance_ucr, account.closed_index) == (0, len(book.log) - 1)
    assert hold.id not in book.state.holds
    assert book.purse_ucr(ALICE) == PURSE_UCR - 6_405
    purse = book.state.purses[book.state.wallets[ALICE.public].id]
    assert purse.holds == 0


def test_a_session_asks_for_what_final_receipts_left(book: Book, world: World) -> None:
    hold = paid(book, both=True)
    account = book.state.holds[hold.id].account
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True), world.receipt(hold, OTHER, SESSION, 1, 10))
    order = world.close(SESSION, hold)
    book.do(order)
    assert book.bodies()[-1] == HoldClosed(hold.id, account.id, CAP - 6_405, CloseReason.ASKED, False, order.signed)
    assert account.balance_ucr == CAP - 6_405
    book.do(world.receipt(hold, OTHER, SESSION, 2, 20, final=True))
    assert book.purse_ucr(ALICE) == PURSE_UCR - 6_405 - 12_824
    assert account.balance_ucr == 0


def test_asking_again_or_too_early_records_nothing(book: Book, world: World) -> None:
    hold = paid(book, both=True)
    (nothing,) = book.do(world.close(SESSION, hold))
    assert nothing.index is None
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True), world.close(SESSION, hold))
    (again,) = book.do(world.close(SESSION, hold))
    assert again.index is None


def test_only_the_session_asks_and_only_of_an_open_hold(book: Book, world: World) -> None:
    hold = paid(book, both=True)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    for other in (ALICE, NODE, STRANGER):
        assert book.refuse(world.close(other, hold)) == Reason.NOT_AUTHORIZED
    book.do(world.receipt(hold, OTHER, SESSION, 1, 10, final=True))
    assert book.refuse(world.close(SESSION, hold)) == Reason.UNKNOWN_HOLD


def test_without_final_receipts_all_comes_back_after_expiry_and_grace(book: Book, world: World) -> None:
    hold = paid(book)
    account = book.state.holds[hold.id].account
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    closes = [body for body in book.tick(LIFE_MS + GRACE_MS) if isinstance(body, HoldClosed)]
    assert not closes
    book.tick()
    book.do(world.receipt(hold, NODE, SESSION, 2, 20))
    assert book.tick(1) == [HoldClosed(hold.id, account.id, CAP - 12_824, CloseReason.EXPIRED, True)]
    assert book.purse_ucr(ALICE) == PURSE_UCR - 12_824


def test_an_expired_free_hold_closes_with_nothing_to_give_back(book: Book) -> None:
    hold = free(book)
    account = book.state.holds[hold.id].account
    book.tick(HOUR_MS)
    assert book.tick(LIFE_MS + 1) == [HoldClosed(hold.id, account.id, 0, CloseReason.EXPIRED, True)]


def test_at_most_500_holds_expire_at_once_in_the_order_of_their_opening(book: Book, world: World) -> None:
    holds = [paid(book, cap=10) for _ in range(502)]
    book.tick(HOUR_MS)
    closed = book.tick(LIFE_MS + 1)
    assert len(closed) == MAX_CLOSED_AT_ONCE == 500
    closed += book.tick()
    assert [body.hold for body in closed if isinstance(body, HoldClosed)] == [hold.id for hold in holds]


def test_many_sessions_of_one_payer_share_a_purse(book: Book, world: World) -> None:
    sessions = [person(f"session {n}") for n in range(50)]
    holds = [book.open(world.open_hold(ALICE, s, {NODE: 1_000}, book.now_ms + LIFE_MS)) for s in sessions]
    assert book.purse_ucr(ALICE) == PURSE_UCR - 50_000
    for hold, session in zip(holds, sessions, strict=True):
        book.do(world.receipt(hold, NODE, session, 1, 1, final=True))
    assert book.purse_ucr(ALICE) == PURSE_UCR - 50 * 640
