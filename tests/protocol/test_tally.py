"""A tally: both sides count the same, however the steps are cut, and a line goes on from its last receipt."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.identity import PublicKey
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE
from nectar_protocol.receipt import Work, check_follows
from nectar_protocol.record import MAX_COUNT
from nectar_protocol.tally import Counted, Tally, Terms, worked

SERVER, SESSION = PublicKey(bytes([1] * 32)), PublicKey(bytes([2] * 32))
TERMS = Terms(bytes(32), SERVER, SESSION, 0, 2, Profile.F32, 0, bytes([3] * 32))
MODEL = ModelEntry(bytes(32), 1, AuditState.SHADOW, (BlockCost(1_000_000, 1_000),) * 2)
METER = Meter.of(0, 2, Profile.F32, MODEL, EXAMPLE)


def step(position: int, positions: int, rows: int = 1, kind: StepKind = StepKind.FORWARD) -> Counted:
    def side(name: int) -> list[list[bytes]]:
        return [
            [bytes([name, row]) + place.to_bytes(30, "big") for place in range(position, position + positions)]
            for row in range(rows)
        ]

    return Counted(StepHeader(kind, position), side(1), side(2))


def test_the_first_position_of_a_step_is_decode_and_the_others_prefill() -> None:
    tally = Tally.begin(TERMS, 20).after(step(0, 3)).after(step(3, 1)).after(step(2, 4))
    assert tally.work == Work(20, 2 + 0 + 3, 1 + 2 + 3 + 4 + 5, 3, 0 + 3 + 2)


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))
def test_nobody_gains_by_computing_more_in_a_step(position: int, positions: int, more: int) -> None:
    short, long = (METER.units(worked(Work(), step(position, count))) for count in (positions, positions + more))
    assert long > short


def test_backward_counts_apart() -> None:
    assert worked(Work(), step(1, 2, kind=StepKind.BACKWARD)) == Work(0, 0, 0, 0, 0, 2, 3)


@given(st.integers(1, 4), st.integers(0, 9), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_row_counts_each_of_its_positions(rows: int, position: int, cuts: list[int]) -> None:
    work, at = Work(), position
    for positions in cuts:
        work = worked(work, step(at, positions, rows))
        at += positions
    assert work.prefill_tokens + work.decode_tokens == rows * sum(cuts)
    assert work.prefill_context + work.decode_context == rows * sum(range(position, at))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.data())
def test_a_line_that_goes_on_from_its_receipt_is_the_line_that_went_on(cuts: list[int], data: st.DataObject) -> None:
    whole = resumed = Tally.begin(TERMS, 50)
    at, cut = 0, data.draw(st.integers(0, len(cuts) - 1))
    for number, positions in enumerate(cuts):
        if number == cut:
            receipt = resumed.receipt(METER)
            resumed = Tally.resume(TERMS, receipt, 50)
            whole = whole.signed()
        whole, resumed = whole.after(step(at, positions)), resumed.after(step(at, positions))
        at += positions
    assert resumed == whole
    check_follows(receipt, resumed.receipt(METER))


def test_a_receipt_of_another_line_or_a_final_one_is_not_gone_on_from() -> None:
    receipt = Tally.begin(TERMS, 5).after(step(0, 2)).receipt(METER)
    for other in (replace(TERMS, stop=1), replace(TERMS, hold=bytes([9] * 32)), replace(TERMS, profile=Profile.INT8)):
        with pytest.raises(ConflictError, match="another line"):
            Tally.resume(other, receipt, 5)
    with pytest.raises(ConflictError, match="final"):
        Tally.resume(TERMS, replace(receipt, final=True), 5)


def test_a_longer_reservation_counts_and_a_shorter_takes_nothing_back() -> None:
    receipt = Tally.begin(TERMS, 5).after(step(0, 2)).receipt(METER)
    assert Tally.resume(TERMS, receipt, 9).work.reserved_tokens == 9
    assert Tally.resume(TERMS, receipt, 3).work.reserved_tokens == 5


def test_totals_that_no_receipt_holds_are_refused() -> None:
    with pytest.raises(MalformedError, match="hold"):
        worked(Work(0, MAX_COUNT, 0), step(0, 2))
