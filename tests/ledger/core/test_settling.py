"""Receipts: running totals of which the newest counts, never over a cap, and split to the micro-credit."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.settling import due
from nectar_ledger.core.state import BURNED
from nectar_ledger.errors import InvariantError
from nectar_protocol.announcement import Profile
from nectar_protocol.entries import Settled
from nectar_protocol.entry import pack_entry
from nectar_protocol.metering import units
from nectar_protocol.modelentry import BlockCost
from nectar_protocol.receipt import Work
from nectar_protocol.record import MAX_COUNT

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import (
    ALICE,
    CAP,
    LIFE_MS,
    NODE,
    OTHER,
    OWNER,
    PURSE_UCR,
    SESSION,
    STRANGER,
    free,
    paid,
    stock,
)
from tests.ledger.world import MODEL, POLICY, Book, World, decoded


def test_a_receipt_moves_the_difference_to_the_last_one(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10), world.receipt(hold, NODE, SESSION, 7, 20))
    live, (batch,) = book.state.holds[hold.id], book.state.batches.values()
    first, second = (body for body in book.bodies() if isinstance(body, Settled))
    assert (first.paid_ucr + first.fee_ucr, second.paid_ucr + second.fee_ucr) == (6_405, 12_824 - 6_405)
    assert live.account.balance_ucr == CAP - 12_824
    assert batch.account.balance_ucr == 12_824 * 98 // 100
    assert book.state.accounts[BURNED].balance_ucr == 12_824 - batch.account.balance_ucr
    line = live.lines[NODE.public]
    assert (line.seq, line.units, line.receipt_index) == (7, 12_824, len(book.log) - 1)
    assert batch.units == 12_824


def test_a_receipt_sent_again_or_late_changes_nothing(book: Book, world: World) -> None:
    hold = paid(book)
    receipts = [world.receipt(hold, NODE, SESSION, seq, 10 * seq) for seq in (1, 2, 3)]
    book.do(receipts[2])
    for late in receipts:
        (answer,) = book.do(late)
        assert answer.index is None


def test_another_receipt_of_the_same_number_is_superseded_too(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    (answer,) = book.do(world.receipt(hold, NODE, SESSION, 1, 20))
    assert answer.index is None
    assert book.state.holds[hold.id].lines[NODE.public].units == 6_405


def test_the_order_of_deliveries_does_not_count(world: World) -> None:
    ends = set()
    for order in permutations(range(1, 5)):
        world = World()
        book = stock(Book(world))
        hold = paid(book, both=True)
        other = world.receipt(hold, OTHER, SESSION, 1, 1)
        book.do(*(world.receipt(hold, NODE, SESSION, seq, 7 * seq, final=seq == 4) for seq in order), other)
        ends.add((book.pending_ucr(NODE), book.purse_ucr(ALICE), book.state.accounts[BURNED].balance_ucr))
    assert len(ends) == 1


def test_rounding_is_once_on_running_totals() -> None:
    world = World(replace(POLICY, price=333_333, fee_ppm=33_333))
    book = stock(Book(world))
    hold = paid(book)
    for seq in range(1, 201):
        book.do(world.receipt(hold, NODE, SESSION, seq, seq))
    line = book.state.holds[hold.id].lines[NODE.public]
    total_ucr = line.units * 333_333 // 1_000_000
    assert book.pending_ucr(NODE) == total_ucr * (1_000_000 - 33_333) // 1_000_000
    assert book.state.accounts[BURNED].balance_ucr == total_ucr - book.pending_ucr(NODE)


def test_weight_multiplies_the_price_and_not_the_units(book: Book, world: World) -> None:
    hold = paid(book, weight=8)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    (batch,) = book.state.batches.values()
    assert (batch.units, batch.account.balance_ucr) == (6_405, 6_405 * 8 * 98 // 100)


def test_free_work_counts_units_and_moves_nothing(book: Book, world: World) -> None:
    hold = free(book)
    before = len(mirrored(book.log).rows("transfers"))
    book.do(world.receipt(hold, NODE, SESSION, 1, 10), world.receipt(hold, NODE, SESSION, 2, 20))
    (batch,) = book.state.batches.values()
    assert (batch.units, batch.free_units, book.state.nodes[NODE.public].free_units) == (12_824, 12_824, 12_824)
    assert len(mirrored(book.log).rows("transfers")) == before


def test_a_batch_is_of_one_node_and_one_model(book: Book, world: World) -> None:
    both, other_model = paid(book, both=True), replace(MODEL, model=bytes(32))
    book.do(world.receipt(both, NODE, SESSION, 1, 10), world.receipt(both, OTHER, SESSION, 1, 10))
    book.do(world.receipt(free(book), NODE, SESSION, 1, 10), world.publish_model(other_model))
    world.model = other_model
    book.do(world.receipt(paid(book), NODE, SESSION, 1, 10))
    assert [(batch.node.key, batch.model) for batch in book.state.batches.values()] == [
        (NODE.public, MODEL.model), (OTHER.public, MODEL.model), (NODE.public, bytes(32)),
    ]  # fmt: skip


# Refusals


def test_a_receipt_needs_an_open_hold_with_a_line_and_its_session(book: Book, world: World) -> None:
    hold = paid(book)
    assert book.refuse(world.receipt(replace(hold, id=bytes(32)), NODE, SESSION, 1, 1)) == Reason.UNKNOWN_HOLD
    assert book.refuse(world.receipt(hold, OTHER, SESSION, 1, 1)) == Reason.NO_LINE
    assert book.refuse(world.receipt(hold, NODE, STRANGER, 1, 1)) == Reason.WRONG_SESSION
    assert book.refuse(world.receipt(hold, NODE, ALICE, 1, 1)) == Reason.WRONG_SESSION


def test_a_cap_is_kept_to_the_unit(book: Book, world: World) -> None:
    hold = paid(book, cap=12_823)
    over = world.receipt(hold, NODE, SESSION, 1, 20)
    assert over.receipt.receipt.units == 12_824
    assert book.refuse(over) == Reason.OVER_CAP
    hold = book.open(world.extend(ALICE, hold, {NODE: 12_824}, hold.expires_ms))
    book.do(over)
    assert book.state.holds[hold.id].account.balance_ucr == 0
    assert book.refuse(world.receipt(hold, NODE, SESSION, 2, 21)) == Reason.OVER_CAP
    book.open(world.extend(ALICE, hold, {NODE: CAP}, hold.expires_ms))
    book.do(world.receipt(hold, NODE, SESSION, 2, 21))


@pytest.mark.parametrize("units", [0, 6_404, 6_406, MAX_COUNT])
def test_units_are_what_anybody_computes(book: Book, world: World, units: int) -> None:
    hold = paid(book)
    assert book.refuse(world.receipt(hold, NODE, SESSION, 1, 10, units=units)) == Reason.WRONG_UNITS


def test_blocks_that_the_model_has_not_and_too_many_units_are_refused(book: Book, world: World) -> None:
    hold = paid(book)
    assert book.refuse(world.receipt(hold, NODE, SESSION, 1, 10, stop=9)) == Reason.WRONG_UNITS
    most = Work(*[MAX_COUNT] * 7)
    assert book.refuse(world.receipt(hold, NODE, SESSION, 1, 10, work=most)) == Reason.WRONG_UNITS


def test_a_hold_names_the_profiles_that_may_serve(book: Book, world: World) -> None:
    command = world.open_hold(ALICE, SESSION, {NODE: CAP}, book.now_ms + LIFE_MS).signed.command
    fields = {name: getattr(command, name) for name, _ in command.layout()[3:]}
    order = world.obey(type(command), ALICE, **(fields | {"profiles": frozenset({Profile.BF16})}))
    hold = book.open(order)
    assert book.refuse(world.receipt(hold, NODE, SESSION, 1, 10)) == Reason.WRONG_PROFILE
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, profile=Profile.BF16))


def _of_span(start: int, stop: int, work: Work, profile: Profile = Profile.F32) -> dict[str, Any]:
    return {
        "start": start, "stop": stop, "profile": profile, "work": work,
        "units": units(work, start, stop, profile, MODEL, POLICY),
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [_of_span(0, 7, decoded(20)), _of_span(1, 8, decoded(20)), _of_span(0, 8, decoded(20), Profile.BF16)],
    ids=["fewer blocks", "other blocks", "another profile"],
)
def test_the_receipts_of_a_line_are_of_one_span_and_profile(book: Book, world: World, changes: dict[str, Any]) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    assert book.refuse(world.receipt(hold, NODE, SESSION, 2, 20, **changes)) == Reason.WRONG_TOTALS


@pytest.mark.parametrize("field", Work._fields)
def test_no_total_falls(book: Book, world: World, field: str) -> None:
    hold = paid(book)
    # Each at least one token, where contexts need them.
    work = Work(5, 5, 5, 5, 5, 5, 5)
    book.do(world.receipt(hold, NODE, SESSION, 1, 0, **_of_span(0, 8, work)))
    less = Work(*[50] * 7)._replace(**{field: 4})
    order = world.receipt(hold, NODE, SESSION, 2, 0, **_of_span(0, 8, less))
    assert order.receipt.receipt.units > book.state.holds[hold.id].lines[NODE.public].units
    assert book.refuse(order) == Reason.WRONG_TOTALS
    book.do(world.receipt(hold, NODE, SESSION, 2, 0, **_of_span(0, 8, work)))


def test_after_a_final_receipt_comes_nothing(book: Book, world: World) -> None:
    hold = paid(book, both=True)
    book.do(world.receipt(hold, NODE, SESSION, 2, 10, final=True))
    assert book.refuse(world.receipt(hold, NODE, SESSION, 3, 20)) == Reason.LINE_FINAL
    assert book.refuse(world.receipt(hold, NODE, SESSION, 3, 10, final=True)) == Reason.LINE_FINAL
    (answer,) = book.do(world.receipt(hold, NODE, SESSION, 1, 5))
    assert answer.index is None


def test_a_closed_hold_is_forgotten_with_its_receipts(book: Book, world: World) -> None:
    hold = paid(book)
    last = world.receipt(hold, NODE, SESSION, 1, 10, final=True)
    book.do(last)
    assert book.refuse(last) == Reason.UNKNOWN_HOLD


def test_a_final_receipt_may_add_nothing(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10), world.receipt(hold, NODE, SESSION, 2, 10, final=True))
    assert hold.id not in book.state.holds
    assert book.purse_ucr(ALICE) == PURSE_UCR - 6_405


def test_a_receipt_over_the_cap_by_a_far_total_leaves_the_line_as_it_was(book: Book, world: World) -> None:
    hold = paid(book)
    far = world.receipt(hold, NODE, SESSION, 10**6, 10**6)
    assert book.refuse(far) == Reason.OVER_CAP
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    assert book.state.holds[hold.id].lines[NODE.public].seq == 1


def test_the_largest_number_of_a_receipt_counts(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, MAX_COUNT, 10))
    assert book.state.holds[hold.id].lines[NODE.public].seq == MAX_COUNT


def test_free_units_beyond_what_an_epoch_can_write_do_not_stop_the_ledger() -> None:
    world = World(replace(POLICY, free_cap_units=MAX_COUNT), replace(MODEL, blocks=(BlockCost(10**15, 0),)))
    book = stock(Book(world))
    tokens = MAX_COUNT // (4 * 10**9)
    for session in (SESSION, STRANGER, OWNER):
        hold = book.open(world.open_hold(session, session, {NODE: MAX_COUNT}, book.now_ms + LIFE_MS))
        book.do(world.receipt(hold, NODE, session, 1, tokens))
    book.tick(POLICY.epoch_ms)
    assert book.state.ledger.epoch == 2


def test_looking_at_a_receipt_changes_nothing(book: Book, world: World) -> None:
    hold = paid(book)
    receipt = world.receipt(hold, NODE, SESSION, 1, 10).receipt.receipt
    found = due(book.state, receipt, book.now_ms)
    assert found is not None
    assert found.moved == (6_276, 129)
    assert due(book.state, receipt, book.now_ms) is not None
    assert list(book.ledger.take_rows()) != []
    assert list(book.ledger.take_rows()) == []


# Logs that nobody would have decided


@pytest.mark.parametrize(
    "change",
    [{"hold_account": 1}, {"batch_account": 1}, {"paid_ucr": 6_277}, {"fee_ucr": 128}, {"paid_ucr": 0}],
    ids=str,
)
def test_a_settlement_with_other_amounts_or_accounts_is_refused(
    book: Book, world: World, change: dict[str, int]
) -> None:
    hold = paid(book)
    account = book.state.holds[hold.id].account.id
    right = Settled(account, account + 1, 6_276, 129, world.receipt(hold, NODE, SESSION, 1, 10).receipt)
    fields = dict(zip(("hold_account", "batch_account", "paid_ucr", "fee_ucr", "receipt"), right, strict=True)) | change
    with pytest.raises(InvariantError):
        book.ledger.apply(len(book.log), pack_entry(book.now_ms, Settled(**fields)))


def test_a_superseded_receipt_in_a_log_is_refused(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10))
    with pytest.raises(InvariantError, match="superseded"):
        book.ledger.apply(len(book.log), book.log[-1].entry)
