"""Computing less than is paid for, against probes: honest service is the best plan exactly when the theorem says so."""

import pytest
from nectar_ledger.core import batching
from nectar_ledger.core.node import Batch
from nectar_ledger.core.state import State
from nectar_protocol.commands import Outcome, Verdict
from nectar_protocol.entries import BatchClosed

from benchmarks.economy.probing import (
    PLANS,
    Odds,
    Plan,
    accuse,
    cheat,
    fraction,
    harm,
    leave,
    misjudge,
    while_young,
    withhold,
)
from tests.economy.switches import reading_verdicts


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_honest_service_earns_more_than_any_plan_to_cheat(plan: Plan) -> None:
    assert cheat(plan, sessions=400).beyond <= 0


@pytest.mark.parametrize(
    ("cost", "probes", "found"),
    [(0.9, 1, 0.9), (0.9, 2, 0.9), (0.9, 3.5, 0.9), (0.6, 0.5, 0.9), (0.6, 2, 0.9), (0.3, 0.2, 0.9), (0.3, 1, 0.7)],
)
def test_honest_service_is_best_exactly_when_the_theorem_says_so(cost: float, probes: float, found: float) -> None:
    odds = Odds(cost, found, probes=probes)
    assert (cheat(while_young, odds, 800).beyond <= 0) == odds.honest_is_best


def test_if_batches_that_failed_were_released_cheating_would_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    reading_verdicts(monkeypatch, lambda batch, verdict: Outcome.PASSED)
    assert cheat(fraction(1), sessions=200).beyond > 0


def test_to_build_up_a_history_and_then_cheat_earns_less_than_honesty() -> None:
    assert leave().beyond <= 0


def test_if_a_history_were_trusted_it_would_be_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without probes after four batches that passed: what other networks do."""
    closed: dict[bytes, int] = {}
    apply_closed = batching.apply_closed

    def counting(state: State, entry: BatchClosed) -> None:
        node = state.batches[entry.account].node.key
        apply_closed(state, entry)
        closed[node] = closed.get(node, 0) + 1

    def trusting(batch: Batch, verdict: Verdict) -> Outcome:
        return Outcome.PASSED if closed.get(batch.node.key, 0) >= 4 else verdict.outcome

    monkeypatch.setattr(batching, "apply_closed", counting)
    reading_verdicts(monkeypatch, trusting)
    assert leave().beyond > 0


def test_who_shows_no_evidence_has_failed() -> None:
    assert withhold(sessions=200).beyond <= 0


def test_if_missing_evidence_were_excused_it_would_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def excusing(batch: Batch, verdict: Verdict) -> Outcome:
        return Outcome.PASSED if verdict.outcome is Outcome.MISSING else verdict.outcome

    reading_verdicts(monkeypatch, excusing)
    assert withhold(sessions=200).beyond > 0


def test_nobody_has_anything_of_a_rivals_batch_that_burns() -> None:
    assert accuse().beyond <= 0


def test_if_burned_batches_went_to_their_accuser_accusing_would_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wallet of the only auditor is the sixth account of that market."""
    monkeypatch.setattr(batching, "BURNED", 6)
    assert accuse().beyond > 0


def test_no_batch_burns_for_the_word_of_strangers() -> None:
    assert harm().beyond <= 0


def test_if_strangers_were_heard_batches_would_burn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "check_authority", lambda state, key, purpose: None)
    monkeypatch.setattr(batching, "_is_on", lambda state, batch, verdict: True)
    assert harm().beyond > 0


def test_an_auditor_that_errs_burns_what_it_errs_about_twice() -> None:
    assert misjudge().beyond <= 0


def test_if_one_failed_look_burned_a_batch_honest_nodes_would_lose_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(batch: Batch, verdict: Verdict) -> Outcome:
        return Outcome.CONFIRMED if verdict.outcome is Outcome.FAILED else verdict.outcome

    reading_verdicts(monkeypatch, hasty)
    assert misjudge().beyond > 0
