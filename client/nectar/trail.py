"""What one side has passed on to the next, as digests: what a bill's inputs are held against."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nectar_protocol.commitment import SIZE


def joined(digests: Sequence[Sequence[bytes]]) -> bytes:
    """Digests [rows][positions] in one piece."""
    return b"".join(b"".join(row) for row in digests)


@dataclass(frozen=True)
class Passed:
    """The vectors of step `last` at `position`: digests of row after row, in one piece."""

    last: int
    position: int
    positions: int
    digests: bytes

    @property
    def rows(self) -> int:
        return len(self.digests) // (SIZE * self.positions)

    def column(self, position: int) -> set[bytes]:
        """Of all rows at one position, which must be among its own."""
        at = position - self.position
        starts = (SIZE * (row * self.positions + at) for row in range(self.rows))
        return {self.digests[start : start + SIZE] for start in starts}


@dataclass
class Trail:
    """All that was passed on, with what was rolled back since. `reached` is the last step that is known."""

    reached: int = 0
    _steps: dict[int, Passed] = field(default_factory=dict)

    def add(self, step: Passed) -> None:
        self._steps[step.last] = step
        self.reached = max(self.reached, step.last)

    def at(self, number: int) -> Passed | None:
        return self._steps.get(number)

    def has(self, step: Passed) -> bool:
        """Did each of these vectors pass at its position, in whatever step and row?

        A replay is cut, merged and reordered as its sender's rollbacks and reorders were by then, which nobody else
        knows; but it has no vector that was not passed on at that position.
        """
        stop = step.position + step.positions
        over = [
            one for one in self._steps.values() if one.position < stop and step.position < one.position + one.positions
        ]
        for position in range(step.position, stop):
            there = (one for one in over if one.position <= position < one.position + one.positions)
            if not step.column(position) <= set().union(*(one.column(position) for one in there)):
                return False
        return True
