"""Strangers have only so much of our work, each of them and all together."""

import pytest
from nectar_swarm import allowance as allowance_module
from nectar_swarm.allowance import Allowance
from nectar_swarm.errors import RefusedError

from tests.clock import Clock


@pytest.fixture
def allowance(clock: Clock) -> Allowance:
    """10 units a second and 40 at once for each, 20 and 80 for all."""
    return Allowance(10, 40, 2, clock)


def test_a_burst_is_allowed_and_then_so_much_a_second(allowance: Allowance, clock: Clock) -> None:
    for _ in range(40):
        allowance.spend("one", 1)
    with pytest.raises(RefusedError):
        allowance.spend("one", 1)
    clock.now_s += 2
    allowance.spend("one", 20)
    with pytest.raises(RefusedError):
        allowance.spend("one", 1)


def test_one_that_asks_too_much_costs_the_others_nothing(allowance: Allowance) -> None:
    allowance.spend("one", 40)
    for _ in range(1000):
        with pytest.raises(RefusedError):
            allowance.spend("one", 1)
    allowance.spend("other", 40)


def test_all_together_have_a_bound(allowance: Allowance, clock: Clock) -> None:
    for name in ("a", "b"):
        allowance.spend(name, 40)
    with pytest.raises(RefusedError):
        allowance.spend("c", 1)
    clock.now_s += 1
    allowance.spend("c", 20)


def test_more_than_a_burst_is_never_allowed(allowance: Allowance, clock: Clock) -> None:
    clock.now_s += 1000
    with pytest.raises(RefusedError):
        allowance.spend("one", 41)


def test_who_has_spent_nothing_lately_is_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance_module, "MAX_REMEMBERED", 3)
    allowance = Allowance(1, 10, 100, clock)
    for name in "abc":
        allowance.spend(name, 1)
    with pytest.raises(RefusedError, match="too many peers"):
        allowance.spend("d", 1)
    allowance.spend("a", 1)
    clock.now_s += 2
    allowance.spend("d", 1)
    assert set(allowance._each) == {"d"}
