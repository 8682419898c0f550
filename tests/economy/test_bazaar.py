"""Whatever breaks between whatever messages, no money is made or lost, and each side loses what it may at most."""

import os
from random import Random

import pytest
from nectar_protocol.money import MILLION, charge_ucr

from benchmarks.economy.market import POLICY
from tests.economy.bazaar import OWNER, PAYERS, PURSE_UCR, Bazaar


def check(seed: int, sessions: int) -> None:
    bazaar = Bazaar(seed)
    try:
        bazaar.run(sessions)
        _check(bazaar)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def _check(bazaar: Bazaar) -> None:
    market, paid = bazaar.market, bazaar.paid()
    assert market.is_balanced()
    costs_ucr = 0
    for visit in bazaar.past:
        units = paid.get(visit.hold.id, 0)
        assert units <= market.meter.units(visit.heard), "a client paid for what it did not get"
        assert visit.computed - visit.lost <= units, "a node lost more than a window each time that something broke"
        costs_ucr += charge_ucr(units, visit.weight, POLICY.price)
    assert not market.state.holds
    assert market.wealth_ucr(*PAYERS) == len(PAYERS) * PURSE_UCR - costs_ucr
    due_ucr = costs_ucr * (MILLION - POLICY.fee_ppm) / MILLION
    assert due_ucr - len(bazaar.past) <= market.wealth_ucr(OWNER) <= due_ucr
    assert sum(visit.lost > 0 for visit in bazaar.past) > len(bazaar.past) // 10, "nothing broke"
    assert bazaar.outages, "the ledger never died"


@pytest.mark.parametrize("seed", range(2))
def test_random_sessions_lose_no_money(seed: int) -> None:
    check(seed, 50)


@pytest.mark.slow
def test_thousands_of_random_sessions_lose_no_money() -> None:
    first = int(os.environ.get("NECTAR_SIMULATION_SEED", Random().randrange(10**9)))
    for seed in range(first, first + 20):
        check(seed, 200)
