"""An imitated distance is as long as it says, however late the timers are."""

from collections.abc import Callable

import pytest
from nectar_swarm import distance
from nectar_swarm.distance import Distance

DELAY_S = 0.02


class LateLoop:
    """Counts in whole milliseconds, as uvloop does, and runs every timer `late_s` later than it counts."""

    def __init__(self, late_s: float) -> None:
        self.now_s, self.late_s = 100.0, late_s
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.calls.append((self.now_s + round(delay_s * 1e3) / 1e3 + self.late_s, call))

    def run(self) -> None:
        for when_s, call in sorted(self.calls, key=lambda call: call[0]):
            self.now_s = max(self.now_s, when_s)
            call()
        self.calls.clear()


def made(monkeypatch: pytest.MonkeyPatch, late_s: float) -> tuple[LateLoop, Distance, list[tuple[float, bytes]]]:
    loop, arrived = LateLoop(late_s), []
    monkeypatch.setattr(distance.asyncio, "get_running_loop", lambda: loop)
    monkeypatch.setattr(distance.time, "perf_counter", lambda: loop.now_s)
    return loop, Distance(DELAY_S, lambda data: arrived.append((loop.now_s, data))), arrived


@pytest.mark.parametrize("late_s", [0.0, 0.00025, 0.0006, 0.0009])
def test_on_average_it_is_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch, late_s: float) -> None:
    loop, far, arrived = made(monkeypatch, late_s)
    sent = []
    for _ in range(1000):
        sent.append(loop.now_s)
        far.write(b"")
        loop.run()
    mean_s = sum(at for at, _ in arrived) / 1000 - sum(sent) / 1000
    assert mean_s == pytest.approx(DELAY_S, abs=3e-6)


def test_a_loop_that_was_held_up_for_long_makes_no_way_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, far, arrived = made(monkeypatch, 0.5)
    far.write(b"")
    loop.run()
    loop.late_s = 0.0
    begun_s = loop.now_s
    far.write(b"")
    loop.run()
    assert arrived[-1][0] - begun_s >= DELAY_S - distance.NEAREST_S


def test_what_was_written_first_arrives_first(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, far, arrived = made(monkeypatch, 0.0006)
    for number in range(20):
        far.write(bytes([number]))
        loop.now_s += 0.0001
    loop.run()
    assert [data[0] for _, data in arrived] == list(range(20))
