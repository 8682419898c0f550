"""The seam by which tests and benchmarks imitate a distance between peers."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

NEAREST_S = 1e-3  # loops count in milliseconds


class Distance:
    """Hands data on, in order, `delay_s` later on average.

    Timers come a little late. What they were late is taken off those that follow, or a route of many links would seem
    longer than it is said to be.
    """

    def __init__(self, delay_s: float, write: Callable[[bytes], None]) -> None:
        self._delay_s, self._write = delay_s, write
        self._loop = asyncio.get_running_loop()
        self._late_s = 0.0  # of all so far
        self._waiting: deque[tuple[float, bytes]] = deque()  # since when, and what

    def write(self, data: bytes) -> None:
        self._waiting.append((time.perf_counter(), data))
        self._loop.call_later(max(0.0, self._delay_s - max(0.0, self._late_s)), self._arrive)

    def _arrive(self) -> None:
        since_s, data = self._waiting.popleft()
        late_s = time.perf_counter() - since_s - self._delay_s
        # A loop that was held up for long was not a longer way: only what timers are late by is made good.
        self._late_s += min(late_s, NEAREST_S)
        self._write(data)
