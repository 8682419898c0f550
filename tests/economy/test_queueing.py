"""Priority is what is paid for, by weight; those who do not pay have a tenth among them, whoever they are."""

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest
from nectar_node import fairqueue
from nectar_node.fairqueue import FairQueue

from benchmarks.economy import queueing
from benchmarks.economy.queueing import WHALES, Customer, crowd, flood, serve, starve
from benchmarks.economy.sharing import share


@pytest.mark.parametrize("whale", WHALES)
def test_nobody_gets_more_than_weights_and_one_step_allow(whale: Sequence[Customer]) -> None:
    assert starve((list(whale),)).beyond <= 0


def test_if_large_steps_cost_what_small_ones_do_they_would_starve_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairqueue, "_cost", lambda work, tokens: 1)
    assert starve(WHALES[:1]).beyond > 0


@pytest.mark.parametrize("identities", [1, 10, 100])
def test_any_number_of_free_sessions_has_a_tenth(identities: int) -> None:
    assert flood((identities,)).beyond <= 0


def test_if_the_free_class_had_no_limit_a_flood_would_drown_those_who_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "FairQueue", partial(FairQueue, 0.5))
    assert flood((100,)).beyond > 0


def test_heavy_prompts_cannot_drown_those_who_do_not_pay() -> None:
    got = serve([*crowd("peer", 24, 1), *crowd("free", 24, 0), *crowd("whale", 4, 8, tokens=1_000)])
    assert 0.08 <= got["free"] / got.total() <= 0.12


def test_an_engine_shares_its_rows_by_weight() -> None:
    shares = asyncio.run(share(5_000))
    assert shares.error <= 0.1
    assert 0.08 <= shares.free <= 0.12
