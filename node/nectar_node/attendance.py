"""Who is away and when they usually come back: what an iteration may wait for.

Sessions that decode return after every token. Starting at once with the first that is back splits them into groups
that take turns, each paying for a whole iteration; a short wait for those just served keeps them in one.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass

RECENT_S = 2.0  # a session counts as active for so long after its last step
LINGER_SHARE = 0.15  # of an iteration: the longest wait
LATE = 1.5  # times its usual absence, from when a session is no longer waited for
SMOOTHING = 0.3


@dataclass
class _Flow:
    short: bool = False
    left_s: float = math.inf  # when its last step was done; infinity while one is here
    absence_s: float = 0.0


class Attendance:
    """Times are those of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._flows: dict[Hashable, _Flow] = {}

    def came(self, key: Hashable, now_s: float, *, short: bool) -> None:
        flow = self._flows.setdefault(key, _Flow())
        if flow.left_s < now_s:
            absence_s = now_s - flow.left_s
            known = flow.absence_s and flow.short
            flow.absence_s = (1 - SMOOTHING) * flow.absence_s + SMOOTHING * absence_s if known else absence_s
        flow.short, flow.left_s = short, math.inf

    def left(self, key: Hashable, now_s: float) -> None:
        if (flow := self._flows.get(key)) is not None:
            flow.left_s = now_s

    def forget(self, key: Hashable) -> None:
        self._flows.pop(key, None)

    def active(self, now_s: float) -> tuple[int, bool]:
        """How many are here or were lately, and does any of them decode?"""
        active = [flow for flow in self._flows.values() if now_s - flow.left_s < RECENT_S]
        return len(active), any(flow.short for flow in active)

    def wait_until(self, now_s: float, iteration_s: float) -> float:
        """Until when it is worth to wait for those who decode and are away; the past when for nobody."""
        limit_s = now_s + LINGER_SHARE * iteration_s
        expected = (flow.left_s + LATE * flow.absence_s for flow in self._flows.values() if flow.short)
        return max((time_s for time_s in expected if time_s <= limit_s), default=-math.inf)
