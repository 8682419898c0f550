"""A client pays for what it was served, up to one window, and a node is paid for what it did, once."""

from dataclasses import replace

import pytest
from nectar_ledger.core import holding, settling
from nectar_ledger.core.state import State
from nectar_node.till import line
from nectar_protocol.money import settle
from nectar_protocol.receipt import SignedReceipt

from benchmarks.economy.market import POLICY
from benchmarks.economy.spending import (
    LIES,
    Lie,
    equivocate,
    overbill,
    overstate,
    post_again,
    refuse_last,
    spend_twice,
    squat,
    take_back,
)
from tests.economy.switches import without_purse_floor


def test_a_client_that_signs_no_more_from_any_step_on_has_one_window_for_nothing() -> None:
    assert refuse_last().beyond <= 0


def test_a_node_that_waited_for_no_signature_would_lose_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "WINDOW_STEPS", 10**6)
    monkeypatch.setattr(line, "WINDOW_TOKENS", 10**6)
    assert refuse_last().beyond > 0


@pytest.mark.parametrize("lie", LIES)
def test_a_node_is_paid_for_no_more_than_it_did(lie: Lie) -> None:
    assert overbill((lie,)).beyond <= 0


def test_without_the_sessions_signature_a_node_would_be_paid_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignedReceipt, "verify", lambda signed: signed.receipt.verify_server(signed.server_signature))
    assert overbill().beyond > 0


def test_units_are_what_the_work_is_worth_whoever_signs_others() -> None:
    assert overstate().beyond <= 0


def test_if_units_were_believed_free_work_would_be_overstated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_worth", lambda meter, receipt: receipt.units)
    assert overstate().beyond > 0


@pytest.mark.parametrize("seed", range(5))
def test_all_nodes_together_are_promised_no_more_than_a_client_has(seed: int) -> None:
    assert spend_twice(seed).beyond <= 0


def test_if_purses_had_no_floor_credits_would_be_spent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    without_purse_floor(monkeypatch)
    assert spend_twice().beyond > 0


def test_what_a_hold_sets_aside_stays_for_its_node() -> None:
    assert take_back().beyond <= 0


def test_if_a_client_alone_could_end_a_hold_its_node_would_go_unpaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_left_by_final_ucr", lambda live: live.account.balance_ucr)
    assert take_back().beyond > 0


def test_without_grace_a_node_that_posts_late_would_go_unpaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "grace_ends_ms", lambda state, live: live.hold.expires_ms)
    assert take_back().beyond > 0


@pytest.mark.parametrize("seed", range(3))
def test_receipts_that_are_posted_again_earn_nothing(seed: int) -> None:
    assert post_again(seed).beyond <= 0


def test_of_two_receipts_of_one_number_one_is_paid() -> None:
    assert equivocate().beyond <= 0


def test_if_a_line_forgot_its_newest_receipt_it_would_be_paid_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_record", lambda state, hold, line, receipt, packed: None)
    assert equivocate().beyond > 0


def test_if_receipts_were_no_running_totals_each_would_be_paid_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "settle", lambda before, *terms: settle(0, *terms))
    assert post_again().beyond > 0


def test_who_squats_on_kv_pays_the_opening_fee() -> None:
    assert squat().beyond <= 0


def test_without_an_opening_fee_squatting_would_be_free() -> None:
    assert squat(policy=replace(POLICY, opening_ppm=0)).beyond > 0
