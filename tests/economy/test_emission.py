"""Free work earns what it is worth where its receipts are believed, whoever shares it out, and nothing elsewhere."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from nectar_ledger.core import epochs
from nectar_ledger.core.state import State
from nectar_protocol.entries import EmissionTo, Share

from benchmarks.economy.emission import befriend_oneself, inflate, split_up
from benchmarks.economy.market import POLICY


@pytest.mark.parametrize("identities", [1, 10, 100])
def test_in_an_open_swarm_ones_own_free_clients_earn_nothing(identities: int) -> None:
    assert befriend_oneself(identities).beyond <= 0


def test_if_an_open_swarm_believed_receipts_of_free_clients_they_would_earn() -> None:
    assert befriend_oneself(policy=POLICY).beyond > 0


@pytest.mark.parametrize("identities", [1, 10, 100])
def test_in_a_trusted_swarm_names_make_no_difference(identities: int) -> None:
    assert split_up(identities).beyond <= 0


def test_if_nodes_shared_by_head_names_would_earn(monkeypatch: pytest.MonkeyPatch) -> None:
    emission = epochs.emission

    def by_head(state: State) -> tuple[EmissionTo, Sequence[Share]]:
        to, shares = emission(state)
        each_ucr = sum(share.amount_ucr for share in shares) // max(len(shares), 1)
        return to, [replace(share, amount_ucr=each_ucr) for share in shares]

    monkeypatch.setattr(epochs, "emission", by_head)
    assert split_up(10).beyond > 0


def test_an_epoch_emits_no_more_than_its_free_work_is_worth() -> None:
    assert inflate().beyond <= 0


def test_without_a_price_an_epoch_would_emit_all_that_it_can() -> None:
    assert inflate(replace(POLICY, emission_price=10**6 * POLICY.emission_price)).beyond > 0
