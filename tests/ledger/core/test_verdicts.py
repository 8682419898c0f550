"""Verdicts: who gives them on what, and what they do to a batch."""

from dataclasses import replace

import pytest
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.state import BURNED
from nectar_protocol.commands import KeyPurpose, KeyState, Outcome
from nectar_protocol.entries import MAX_VERDICTS, BatchClosed, BatchOutcome
from nectar_protocol.modelentry import AuditState

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
    name_auditor,
    paid,
    stock,
)
from tests.ledger.world import MODEL, Book, World, replay

PASSED, FAILED, CONFIRMED, MISSING = Outcome
RELEASED, BURNT = BatchOutcome


def judge(book: Book, *verdicts: tuple[Outcome, bytes]) -> list[BatchClosed]:
    """How a batch ends on which these verdicts were given, if it ends."""
    hold, batch = earn(book)
    for outcome, evidence in verdicts:
        book.do(book.world.verdict(AUDITOR, NODE, batch, hold, outcome, evidence))
    return [body for body in book.tick(PROBED.batch_ms) if isinstance(body, BatchClosed)]


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
