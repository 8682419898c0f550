"""No credits come from paying oneself, from new accounts, or from claims."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from nectar_ledger.core import epochs, settling
from nectar_ledger.core.hold import HoldLine, LiveHold
from nectar_ledger.core.node import Batch
from nectar_ledger.core.state import State
from nectar_protocol.entries import EmissionTo, Share
from nectar_protocol.money import Settlement
from nectar_protocol.policy import Policy

from benchmarks.economy.emission import OPEN
from benchmarks.economy.market import POLICY
from benchmarks.economy.washing import claim, sign_up, wash
from tests.economy.switches import without_purse_floor


@pytest.mark.parametrize("seed", range(3))
def test_paying_oneself_costs_the_fee(seed: int) -> None:
    assert wash(seed).beyond <= 0


def test_without_a_fee_paying_oneself_would_be_free() -> None:
    assert wash(policy=replace(POLICY, fee_ppm=0)).beyond > 0


def test_if_paid_work_shared_the_emission_paying_oneself_would_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    move = settling.move

    def generous(state: State, hold: LiveHold, line: HoldLine, batch: Batch, moved: Settlement, units: int) -> None:
        move(state, hold, line, batch, moved, units)
        line.node.free_units += units

    monkeypatch.setattr(settling, "move", generous)
    assert wash().beyond > 0


def test_fresh_accounts_have_nothing_and_cannot_borrow() -> None:
    assert sign_up().beyond <= 0


def test_if_purses_had_no_floor_fresh_accounts_would_spend_what_others_have(monkeypatch: pytest.MonkeyPatch) -> None:
    without_purse_floor(monkeypatch)
    assert sign_up().beyond > 0


@pytest.mark.parametrize("policy", [POLICY, OPEN], ids=["trusted", "open"])
def test_nothing_is_paid_for_claims(policy: Policy) -> None:
    assert claim(policy=policy).beyond <= 0


def test_if_nodes_were_paid_for_being_there_claims_would_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_head(state: State) -> tuple[EmissionTo, Sequence[Share]]:
        each_ucr = state.rules.emission_ucr // len(state.nodes)
        nodes = [(node.key, node.payee.owner) for node in state.nodes.values()]
        return EmissionTo.PAYEES, [Share(key, owner, 0, each_ucr) for key, owner in nodes if owner]

    monkeypatch.setattr(epochs, "emission", by_head)
    assert claim().beyond > 0
