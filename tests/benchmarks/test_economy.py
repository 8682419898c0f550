"""The economy's benchmark runs on real nodes under a real ledger, and measures each of its keys."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from benchmarks.economy import crowding, measurements, metering
from benchmarks.economy.load import LoadError, open_load
from benchmarks.economy.measurements import KEYS, MEASUREMENTS, QUICK, run
from benchmarks.economy.venue import Place, Stage, open_places


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NECTAR_CACHE", "")  # so that what the venue sets is taken back
        with open_places({"tiny": Stage("tiny")}) as places:
            yield places["tiny"]


def test_each_key_is_measured_once() -> None:
    measured = [name for measurement in MEASUREMENTS for name in measurement.keys]
    assert sorted([*measured, "worst_cheat_gain"]) == sorted(key.name for key in KEYS)


def test_what_is_asked_for_is_measured() -> None:
    values, raw = run(replace(QUICK, rows=2_000), ["free_share"])
    assert set(values) == {"free_share"}
    assert set(raw) >= {"shares"}


def test_who_pays_for_a_session_is_billed_and_who_does_not_is_not(place: Place) -> None:
    with place.connection() as connection:
        spent = {}
        for pays in (True, False):
            model = place.client(connection, pays=pays)
            with model.session(64, **({"weight": 1} if pays else {})) as session:
                hidden = crowding.hidden_states(place, 1)
                for position in range(2 * metering.WINDOW + 1):
                    session.step(hidden, position)
                spent[pays] = session.spent.ucr
    assert spent[True] > 0
    assert spent[False] == 0


def test_steps_and_calls_are_timed_with_a_ledger_and_without(place: Place) -> None:
    window, calls = metering.steps(place, 2), metering.throughput(place, 1, 3)
    assert len(window) == metering.WINDOW
    for compared, rounds in ((window[0], 2), (calls, 1)):
        assert len(compared.paid_s) == len(compared.free_s) == rounds
        assert min(*compared.paid_s, *compared.free_s) > 0


def test_rounds_are_compared_one_by_one() -> None:
    compared = metering.Compared(paid_s=(1.0, 2.0, 40.0), free_s=(0.5, 1.5, 10.0))
    assert compared.added_s == 0.5
    assert compared.cost == 0.5


def test_a_crowd_steps_only_while_it_may(place: Place) -> None:
    with open_load(place, {0: 3, 2: 1}) as crowd:
        assert crowd.steps() == Counter()
        measured = crowding.delay(place, crowd, 1, 5)
        after = crowd.steps()
        assert after == crowd.steps()  # it pauses
    assert measured.steps == 5
    assert measured.free_steps == after.total() > 0
    assert min(after[0], after[2]) > 0


def test_shares_of_a_real_node_come_to_one(place: Place) -> None:
    shares = crowding.share(place, 4)
    assert sum(shares.by_weight.values()) + shares.free == pytest.approx(1)
    assert shares.by_weight[8] > shares.by_weight[1]


def test_a_load_that_cannot_go_on_says_so(place: Place) -> None:
    with pytest.raises(LoadError), open_load(place, {3: 1}):  # no session has such a weight
        pass


def test_no_node_is_started_for_a_short_run_of_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stages: Mapping[str, Stage]) -> None:
        raise RuntimeError(f"started {stages}")

    monkeypatch.setattr(measurements, "open_places", refuse)
    assert run(replace(QUICK, rows=1_000), ["share_error"])[0]["share_error"] >= 0
