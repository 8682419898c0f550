"""A node's line: at no moment is more computed without a countersignature than the window, and all of it is billed."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.errors import PaymentError, StepError
from nectar_node.till.line import WINDOW_STEPS, WINDOW_TOKENS, Asked, Line, check_size, counted
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE
from nectar_protocol.receipt import Work, check_follows
from nectar_protocol.tally import Tally, Terms
from nectar_swarm.bills import Bill, BilledStep, Countersignature

SERVER, SESSION = Identity.from_seed(bytes([1] * 32)), Identity.from_seed(bytes([2] * 32))
TERMS = Terms(bytes(32), SERVER.public, SESSION.public, 0, 2, Profile.F32, 0, bytes(32))
ENTRY = ModelEntry(bytes(32), 1, AuditState.SHADOW, (BlockCost(1_000_000, 1_000),) * 2)
METER = Meter.of(0, 2, Profile.F32, ENTRY, EXAMPLE)
PLENTY = 10**12


def new_line(cap_units: int | None = PLENTY, rows: int = 1, reserved: int = 0) -> Line:
    return Line(Tally.begin(TERMS, reserved), METER, cap_units, rows)


def asked(number: int, positions: int = 1, rows: int = 1, position: int = 0, first: int | None = None) -> Asked:
    return Asked(first or number, number, StepHeader(StepKind.FORWARD, position), rows, positions)


def compute(line: Line, *steps: Asked) -> None:
    """Admitted ones."""
    digests = [[[bytes([step.last % 256]) * 32] * step.positions] * step.rows for step in steps]
    billed = [
        BilledStep(step.first, step.last, step.header, made, made) for step, made in zip(steps, digests, strict=True)
    ]
    line.count(billed, counted(line.tally, billed))


def admit(line: Line, *steps: Asked) -> None:
    for step in steps:
        assert line.why_wait(step) is None
        line.admit(step)


def sign(line: Line, bill: Bill) -> None:
    assert line.countersign(Countersignature(bill.receipt.seq, bill.receipt.sign(SESSION)))


def test_what_is_unsigned_is_what_was_admitted_beyond_the_last_receipt() -> None:
    line = new_line(reserved=100)
    opening = METER.units(Work(100))
    assert line.unsigned_units == opening
    sign(line, line.bill(SERVER))
    assert line.unsigned_units == 0
    admit(line, asked(1, 10))
    assert line.unsigned_units == METER.units(line.admitted) - opening > 0
    compute(line, asked(1, 10))
    sign(line, line.bill(SERVER))
    assert line.unsigned_units == 0


def test_an_opening_is_to_be_paid_until_a_receipt_covers_what_it_reserves() -> None:
    line = new_line(reserved=16)
    assert line.opens
    bill = line.bill(SERVER)
    assert (bill.steps, bill.receipt.work) == ((), Work(16))
    assert line.opens
    sign(line, bill)
    assert not line.opens
    receipt = line.receipt
    assert receipt is not None
    for reserved, opens in ((8, False), (16, False), (17, True)):
        again = Line(Tally.resume(TERMS, receipt.receipt, reserved), METER, PLENTY, 1, receipt)
        assert again.opens == opens


@given(
    st.lists(st.tuples(st.integers(1, 700), st.booleans()), min_size=1, max_size=60),
    st.lists(st.sampled_from(["compute", "bill", "sign"]), max_size=120),
)
def test_no_more_is_under_way_than_the_window_or_one_step_that_could_not_be_cut(
    sizes: list[tuple[int, bool]], acts: list[str]
) -> None:
    line, under_way, number, position = new_line(), list[Asked](), 0, 0
    for act in ["admit", *acts]:
        while sizes:
            tokens, replay = sizes[0]
            step = asked(number + 1 + replay, tokens, position=position, first=number + 1)
            if line.why_wait(step) is not None:
                break
            line.admit(step)
            under_way.append(step)
            number, position = step.last, position + tokens
            sizes.pop(0)
        if act == "compute" and under_way:
            compute(line, *under_way)
            under_way.clear()
        if act == "bill" and line.may_bill:
            line.bill(SERVER)
        if act == "sign" and line.offer is not None:
            sign(line, line.offer.bill)
        assert line.unsigned_steps <= WINDOW_STEPS
        assert line.unsigned_tokens <= WINDOW_TOKENS or line.unsigned_steps == 1
        assert line.uncounted_steps == len(under_way)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_every_step_is_billed_once_in_order_and_receipts_follow_each_other(
    steps: list[tuple[int, bool, bool]],
) -> None:
    line, position, bills = new_line(rows=2, reserved=64), 0, list[Bill]()
    for number, (positions, rolls_back, bills_now) in enumerate(steps, 1):
        at = position // 2 if rolls_back else position
        step = asked(number, positions, 2, at)
        if line.why_wait(step) is not None:
            bills.append(line.bill(SERVER))
            sign(line, bills[-1])
        admit(line, step)
        compute(line, step)
        position = at + positions
        if bills_now:
            bills.append(line.bill(SERVER))
            sign(line, bills[-1])
    bills.append(line.bill(SERVER, final=True))
    sign(line, bills[-1])
    assert [step.last for bill in bills for step in bill.steps] == list(range(1, len(steps) + 1))
    receipts = [bill.receipt for bill in bills]
    for before, after in pairwise(receipts):
        check_follows(before, after)
    work = receipts[-1].work
    assert work.prefill_tokens + work.decode_tokens == 2 * sum(positions for positions, _, _ in steps)
    assert line.receipt is not None
    assert line.receipt.receipt == receipts[-1]
    assert line.receipt.receipt.final
    line.receipt.verify()
    assert (line.unsigned_steps, line.unsigned_tokens) == (0, 0)


@given(st.integers(0, 400), st.lists(st.integers(1, 30), min_size=1, max_size=15))
def test_nothing_is_computed_over_the_cap_and_no_receipt_is_over_it(cap: int, sizes: list[int]) -> None:
    line, position = new_line(cap, reserved=0), 0
    for number, positions in enumerate(sizes, 1):
        step = asked(number, positions, position=position)
        if line.why_wait(step) is not None:
            break
        admit(line, step)
        compute(line, step)
        bill = line.bill(SERVER)
        sign(line, bill)
        position += positions
        assert bill.receipt.units <= cap


def test_a_raised_cap_lets_the_step_in() -> None:
    line, step = new_line(3), asked(1, 10)
    assert "units" in (line.why_wait(step) or "")
    line.cap_units = PLENTY
    assert line.why_wait(step) is None


def test_a_hold_without_a_line_lets_one_window_in_and_bills_nothing_until_there_is_one() -> None:
    line = new_line(None)
    for number in range(1, WINDOW_STEPS + 1):
        admit(line, asked(number, position=number - 1))
        compute(line, asked(number, position=number - 1))
    assert line.why_wait(asked(WINDOW_STEPS + 1)) is not None
    assert not line.is_due
    assert not line.may_bill
    line.cap_units = PLENTY
    assert line.is_due
    sign(line, line.bill(SERVER))
    assert line.why_wait(asked(WINDOW_STEPS + 1)) is None


def test_a_bill_is_due_after_eight_steps_or_512_tokens_and_one_is_open_at_a_time() -> None:
    line = new_line()
    for number in range(1, 9):
        assert not line.is_due
        admit(line, asked(number, position=number - 1))
        compute(line, asked(number, position=number - 1))
    assert line.is_due
    first = line.bill(SERVER)
    admit(line, asked(9, 512, position=8))
    compute(line, asked(9, 512, position=8))
    assert not line.is_due
    sign(line, first)
    assert line.is_due


def test_what_is_counted_while_a_bill_is_signed_stands_on_the_next_one() -> None:
    line = new_line()
    admit(line, asked(1), asked(2, position=1))
    compute(line, asked(1))
    first, before = line.bill(SERVER), line.tally
    second = [BilledStep(2, 2, StepHeader(StepKind.FORWARD, 1), [[bytes(32)]], [[bytes(32)]])]
    late = counted(before, second)
    sign(line, first)
    line.count(second, late)
    assert line.bill(SERVER).receipt.seq == first.receipt.seq + 1


def test_only_the_sessions_signature_of_this_receipt_counts_and_old_answers_do_nothing() -> None:
    line = new_line()
    admit(line, asked(1))
    compute(line, asked(1))
    bill = line.bill(SERVER)
    other = replace(bill.receipt, units=bill.receipt.units + 1)
    for signature in (other.sign(SESSION), bill.receipt.sign(SERVER), bytes(64)):
        with pytest.raises(PaymentError, match="not countersigned"):
            line.countersign(Countersignature(1, signature))
    assert line.countersign(Countersignature(2, bill.receipt.sign(SESSION))) is None
    assert line.unsigned_steps == 1
    sign(line, bill)
    assert line.countersign(Countersignature(1, bill.receipt.sign(SESSION))) is None


@pytest.mark.parametrize(("rows", "positions"), [(1, 1024), (512, 2)])
def test_a_step_as_large_as_the_window_is_taken(rows: int, positions: int) -> None:
    check_size(rows, positions)


def test_a_step_larger_than_any_window_is_refused() -> None:
    for rows, positions in ((1, 1025), (512, 3)):
        with pytest.raises(StepError, match="tokens"):
            check_size(rows, positions)
