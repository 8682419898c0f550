"""How much work strangers can have from us: so much a second for each of them, and for all together.

One unit is about the verification of a signature, 80 µs.
"""

from collections.abc import Callable, Hashable

from nectar_swarm.errors import RefusedError

MAX_REMEMBERED = 4096


class _Bucket:
    """Fills as units are spent, and empties at `rate` a second."""

    def __init__(self, rate: float, size: float, now_s: float) -> None:
        self._rate, self._size, self._level, self._since_s = rate, size, 0.0, now_s

    def level(self, now_s: float) -> float:
        self._level = max(0.0, self._level - self._rate * (now_s - self._since_s))
        self._since_s = now_s
        return self._level

    def has_room(self, units: float, now_s: float) -> bool:
        return self.level(now_s) + units <= self._size

    def add(self, units: float) -> None:
        self._level += units


class Allowance:
    """Everybody may spend `rate` units a second and `burst` at once; all together `total` times as much."""

    def __init__(self, rate: float, burst: float, total: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._all = _Bucket(rate * total, burst * total, clock())
        self._each: dict[Hashable, _Bucket] = {}

    def spend(self, who: Hashable, units: float) -> None:
        """Raises RefusedError if it is too much for one, or for all."""
        now_s = self._clock()
        own = self._each.get(who) or _Bucket(self._rate, self._burst, now_s)
        if not (own.has_room(units, now_s) and self._all.has_room(units, now_s)):
            raise RefusedError("too many requests at once; ask again in some seconds")
        if who not in self._each and len(self._each) >= MAX_REMEMBERED:
            self._each = {other: bucket for other, bucket in self._each.items() if bucket.level(now_s)}
            if len(self._each) >= MAX_REMEMBERED:
                raise RefusedError("too many peers ask at once; ask again in some seconds")
        for bucket in (own, self._all):
            bucket.add(units)
        self._each[who] = own
