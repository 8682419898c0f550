"""The ledger's benchmarks run on a real ledger, and the one that counts what is lost would see it."""

import base64
from typing import Any

import pytest
from nectar_ledger.store.sequencer import unix_ms
from nectar_protocol.entries import HoldOpened, Settled
from nectar_protocol.entry import pack_entry
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.money import settle
from nectar_protocol.receipt import SignedReceipt

from benchmarks.ledger import KEYS, Scale, run
from benchmarks.people import POLICY, WEIGHT, People, sign_receipt
from benchmarks.promises import Promises, Record
from benchmarks.requests import Request

PEOPLE = People(seed=3, nodes=1, holds=1)
NODE, SESSION = PEOPLE.node(0), PEOPLE.session(0)
REQUEST = PEOPLE.opening(bytes(32), 0, unix_ms())
OPEN = Request("/v1/commands", REQUEST.pack())


@pytest.fixture(scope="module")
def signed() -> SignedHold:
    hold: Hold = REQUEST.command.hold()  # type: ignore[attr-defined]  # an OpenHold
    return hold.signed(PEOPLE.key("ledger"))


def post(hold: Hold, *seqs: int) -> Request:
    return Request("/v1/receipts", b"".join(sign_receipt(hold, NODE, SESSION, seq) for seq in seqs))


def opened(signed: SignedHold) -> bytes:
    return pack_entry(1, HoldOpened(signed, bytes(32)))


def settled(hold: Hold, seq: int, before: int) -> bytes:
    """Receipt `seq`, as it is settled after receipt `before`."""
    receipts = [SignedReceipt.unpack(sign_receipt(hold, NODE, SESSION, number)) for number in (before or 1, seq)]
    units = [one.receipt.units for one in receipts]
    moved = settle(units[0] if before else 0, units[1], WEIGHT, POLICY.price, POLICY.fee_ppm)
    return pack_entry(1, Settled(4, 5, *moved, receipts[1]))


def promised(signed: SignedHold) -> Promises:
    """The hold in entry 0, and receipt 2 in entry 1, which superseded receipt 1."""
    answer: dict[str, Any] = {"index": 0, "hold": base64.b64encode(signed.pack()).decode()}
    promises = Promises()
    promises.keep(OPEN, answer)
    promises.keep(post(signed.hold, 1, 2), {"results": [{"status": "superseded"}, {"status": "settled", "index": 1}]})
    return promises


def test_what_is_confirmed_and_in_the_log_is_not_lost(signed: SignedHold) -> None:
    record = Record.of([opened(signed), settled(signed.hold, 2, 0), settled(signed.hold, 3, 2)])
    assert (record.lost(promised(signed)), record.counted_twice, record.holds) == (0, 0, 1)
    assert record.seqs == {(signed.hold.id, NODE.public): 3}


def test_a_lost_receipt_and_a_lost_hold_are_counted(signed: SignedHold) -> None:
    older = Record.of([opened(signed), settled(signed.hold, 1, 0)])
    assert older.lost(promised(signed)) == 2  # the line is behind, and entry 1 is another receipt
    assert Record.of([]).lost(promised(signed)) == 3


def test_what_counts_twice_is_counted(signed: SignedHold) -> None:
    again = Record.of([opened(signed), settled(signed.hold, 2, 0), settled(signed.hold, 2, 0)])
    assert again.counted_twice == 2  # the seq does not rise, and more is paid than due
    assert Record.of([opened(signed), opened(signed)]).counted_twice == 1


def test_a_line_that_is_paid_less_than_due_has_lost_something(signed: SignedHold) -> None:
    record = Record.of([opened(signed), settled(signed.hold, 2, 1)])
    assert (record.lost(promised(signed)), record.counted_twice) == (1, 0)


@pytest.mark.slow
def test_each_key_is_measured_on_a_real_ledger() -> None:
    measured = run(Scale(holds=100, rounds=1, half_load_rounds=1))
    assert set(measured.values) == {key.name for key in KEYS}
    assert all(value > 0 for value in measured.values.values())
    assert measured.raw["postgres_database_us"] > 0
