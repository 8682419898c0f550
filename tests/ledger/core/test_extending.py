"""Later revisions of holds: who may ask for them, and that they take nothing back."""

from dataclasses import replace

import pytest
from nectar_ledger.core.reasons import Reason
from nectar_protocol.identity import Identity
from nectar_protocol.record import MAX_COUNT

from tests.ledger.core.stage import (
    ALICE,
    CAP,
    LIFE_MS,
    NODE,
    OTHER,
    PURSE_UCR,
    SESSION,
    STRANGER,
    free,
    paid,
)
from tests.ledger.world import Book, World


def test_a_revision_adds_lines_raises_caps_and_lasts_longer(book: Book, world: World) -> None:
    hold = paid(book, cap=1_000)
    book.now_ms += 1_000
    revised = book.open(world.extend(ALICE, hold, {NODE: 1_500, OTHER: 300}, book.now_ms + LIFE_MS))
    assert (revised.revision, revised.expires_ms) == (2, hold.expires_ms + 1_000)
    live = book.state.holds[hold.id]
    assert (live.hold, live.account.balance_ucr, book.purse_ucr(ALICE)) == (revised, 1_800, PURSE_UCR - 1_800)
    again = book.open(world.extend(ALICE, revised, {NODE: 1_500, OTHER: 300}, revised.expires_ms))
    assert (again.revision, live.account.balance_ucr) == (3, 1_800)


@pytest.mark.parametrize(
    ("caps", "revision", "earlier_ms"),
    [({NODE: 999, OTHER: 1_000}, 2, 0), ({NODE: 1_000}, 2, 0), ({NODE: 2_000, OTHER: 2_000}, 1, 0),
     ({NODE: 1_000, OTHER: 1_000}, 2, 1)],
    ids=["a cap falls", "a line is gone", "the revision is old", "it expires earlier"],
)  # fmt: skip
def test_a_revision_takes_nothing_back(
    book: Book, world: World, caps: dict[Identity, int], revision: int, earlier_ms: int
) -> None:
    hold = paid(book, cap=1_000, both=True)
    order = world.extend(ALICE, hold, caps, hold.expires_ms - earlier_ms, revision)
    assert book.refuse(order) == Reason.WRONG_REVISION


def test_only_who_opened_a_hold_extends_it(book: Book, world: World) -> None:
    hold, gift = paid(book), free(book)
    book.do(world.grant(STRANGER, 10_000), world.fund(STRANGER, 10_000))
    for other in (STRANGER, SESSION, NODE):
        assert book.refuse(world.extend(other, hold, {NODE: CAP}, hold.expires_ms)) == Reason.NOT_AUTHORIZED
    assert book.refuse(world.extend(ALICE, gift, {NODE: CAP}, gift.expires_ms)) == Reason.NOT_AUTHORIZED
    assert book.open(world.extend(SESSION, gift, {NODE: CAP + 1}, gift.expires_ms)).revision == 2


def test_what_is_not_open_is_not_extended(book: Book, world: World) -> None:
    hold = paid(book)
    order = world.extend(ALICE, replace(hold, id=bytes(32)), {NODE: CAP}, hold.expires_ms)
    assert book.refuse(order) == Reason.UNKNOWN_HOLD
    book.do(world.receipt(hold, NODE, SESSION, 1, 1, final=True))
    assert book.refuse(world.extend(ALICE, hold, {NODE: CAP + 1}, hold.expires_ms)) == Reason.UNKNOWN_HOLD


def test_a_hold_is_extended_until_its_last_millisecond(book: Book, world: World) -> None:
    hold = paid(book)
    book.now_ms = hold.expires_ms
    revised = book.open(world.extend(ALICE, hold, {NODE: CAP}, book.now_ms + LIFE_MS))
    book.now_ms = revised.expires_ms + 1
    assert book.refuse(world.extend(ALICE, revised, {NODE: CAP}, book.now_ms + LIFE_MS)) == Reason.HOLD_EXPIRED


def test_an_extension_obeys_the_limits_of_opening(book: Book, world: World) -> None:
    hold, gift = paid(book), free(book)
    late_ms = book.now_ms + LIFE_MS + 1
    assert book.refuse(world.extend(ALICE, hold, {NODE: CAP}, late_ms)) == Reason.WRONG_EXPIRY
    stranger = {NODE: CAP, STRANGER: 1}
    assert book.refuse(world.extend(ALICE, hold, stranger, hold.expires_ms)) == Reason.UNKNOWN_NODE
    much = {NODE: PURSE_UCR + 1}
    assert book.refuse(world.extend(ALICE, hold, much, hold.expires_ms)) == Reason.INSUFFICIENT_FUNDS
    most = {NODE: MAX_COUNT, OTHER: MAX_COUNT}
    assert book.refuse(world.extend(ALICE, hold, most, hold.expires_ms)) == Reason.WRONG_AMOUNT
    wide = {NODE: world.policy.free_cap_units + 1}
    assert book.refuse(world.extend(SESSION, gift, wide, gift.expires_ms)) == Reason.WRONG_CAP


def test_a_line_with_a_final_receipt_is_raised_no_more(book: Book, world: World) -> None:
    hold = paid(book, both=True)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    more = {NODE: CAP + 1, OTHER: CAP}
    assert book.refuse(world.extend(ALICE, hold, more, hold.expires_ms)) == Reason.WRONG_CAP
    book.open(world.extend(ALICE, hold, {NODE: CAP, OTHER: CAP + 1}, hold.expires_ms))
