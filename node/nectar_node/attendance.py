"""Who is away and when they usually come back: what an iteration may wait for.

Sessions that decode return after every token. Starting at once with the first that is back splits them into groups
that take turns, each paying for a whole iteration; a short wait for those just served keeps them in one.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

RECENT_S = 2.0  # a session counts as active for so long after its last step
DEVIATIONS = 2.0  # above its usual absence, until a session is expected
SMOOTHING = 0.25


@dataclass
class _Flow:
    rows: int = 0
    short: bool = False
    paid: bool = False
    left_s: float = math.inf  # when its last step was done; infinity while one is here
    absence_s: float = 0.0
    deviation_s: float = 0.0

    @property
    def expected_s(self) -> float:
        """When it should be back, at the latest; for one whose absences are not known, when it left."""
        return self.left_s + self.absence_s + DEVIATIONS * self.deviation_s

    def came(self, now_s: float, rows: int, *, short: bool, paid: bool) -> None:
        if self.left_s < now_s:
            absence_s = now_s - self.left_s
            if self.absence_s and self.short:
                self.deviation_s += SMOOTHING * (abs(absence_s - self.absence_s) - self.deviation_s)
                self.absence_s += SMOOTHING * (absence_s - self.absence_s)
            else:
                self.absence_s, self.deviation_s = absence_s, 0.0
        self.rows, self.short, self.paid, self.left_s = rows, short, paid, math.inf


class Attendance:
    """Times are those of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._flows: dict[Hashable, _Flow] = {}

    def came(self, key: Hashable, now_s: float, rows: int, *, short: bool, paid: bool = False) -> None:
        self._flows.setdefault(key, _Flow()).came(now_s, rows, short=short, paid=paid)

    def left(self, key: Hashable, now_s: float) -> None:
        if (flow := self._flows.get(key)) is not None:
            flow.left_s = now_s

    def forget(self, key: Hashable) -> None:
        self._flows.pop(key, None)

    def active(self, now_s: float) -> tuple[int, bool]:
        """How many are here or were lately, and does any of them decode?"""
        active = [flow for flow in self._flows.values() if now_s - flow.left_s < RECENT_S]
        return len(active), any(flow.short for flow in active)

    def somebody_pays(self, now_s: float) -> bool:
        """Is anybody who pays here, or was lately?"""
        return any(flow.paid and now_s - flow.left_s < RECENT_S for flow in self._flows.values())

    def paid_until(self, now_s: float, patience_s: float) -> float:
        """Until when the first of those who pay and decode will be back; the past when none is, within so long."""
        away = [flow.expected_s for flow in self._flows.values() if flow.paid and flow.short]
        coming = [expected_s for expected_s in away if now_s < expected_s <= now_s + patience_s]
        return min(coming, default=-math.inf)

    def wait_until(
        self, now_s: float, here: int, iteration_s: Callable[[int], float], *, only_paid: bool = False
    ) -> float:
        """Until when it is worth that so many rows wait for those who decode and are away; the past when for nobody.
        Who pays waits for no others (`only_paid`).

        `iteration_s` says how long so many rows take. Who comes back to a running iteration waits for its end and
        takes one more; who is waited for shares this one. It is worth it when all rows together wait less.
        """
        flows = [flow for flow in self._flows.values() if flow.short and (flow.paid or not only_paid)]
        away = [flow for flow in flows if now_s < flow.expected_s < math.inf]
        coming, best_s, until_s = 0, 0.0, -math.inf
        for flow in sorted(away, key=lambda flow: flow.expected_s):
            coming += flow.rows
            wait_s, together_s = flow.expected_s - now_s, iteration_s(here + coming)
            spared_s = iteration_s(here) + iteration_s(coming) - together_s - wait_s
            lost_s = wait_s + together_s - iteration_s(here)
            if (gain_s := coming * spared_s - here * lost_s) > best_s:
                best_s, until_s = gain_s, flow.expected_s
        return until_s
