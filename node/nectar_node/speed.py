"""How fast this node computes, measured from its work."""

from dataclasses import dataclass, field

from nectar_node.line import Line

PROMPT_ROWS = 32  # from which an iteration without decoding tells what a prompt's token costs
STRETCH = 0.5  # by how much of an empty iteration's time one may be longer than it must
MANY_ROWS = 1 << 16
SMOOTHING = 0.1


@dataclass
class Speed:
    """Moving averages, in seconds: a single token through the whole span; one token of a longer prompt; an iteration
    that only decodes, for however many sessions; and what each row of a prompt's chunk adds to one."""

    decode_s: float = 0.0
    prefill_s: float = 0.0
    iteration_s: float = 0.0
    added_s: float = 0.0
    _by_rows: dict[int, float] = field(default_factory=dict)  # iterations that only decode, by their rows' bit length
    _line: Line = field(default_factory=Line)  # through the same iterations

    def count(self, short_rows: int, prompt_rows: int, elapsed_s: float) -> None:
        """An iteration through the whole span took so long."""
        if not prompt_rows:
            self.iteration_s = _smooth(self.iteration_s, elapsed_s)
            size = short_rows.bit_length()
            self._by_rows[size] = _smooth(self._by_rows.get(size, 0.0), elapsed_s)
            self._line.count(short_rows, elapsed_s, self.prefill_s)
            if short_rows == 1:
                self.decode_s = _smooth(self.decode_s, elapsed_s)
        elif short_rows:
            self.added_s = _smooth(self.added_s, max(elapsed_s - self.iteration_s, 0.0) / prompt_rows)
        elif prompt_rows >= PROMPT_ROWS:
            self.prefill_s = _smooth(self.prefill_s, elapsed_s / prompt_rows)

    def decoding_s(self, rows: int) -> float:
        """An iteration that decodes about so many rows: as measured, or as long as the next smaller that was."""
        size = rows.bit_length()
        known = [smaller for smaller in self._by_rows if smaller <= size]
        return self._by_rows[max(known)] if known else min(self._by_rows.values(), default=0.0)

    @property
    def spare_rows(self) -> int:
        """Rows that make an iteration longer by half of what it takes at least: two with these last no longer than
        three of a single row."""
        row_s = self._line.row_s(self.prefill_s)
        least_s = STRETCH * self._line.at(0, self.prefill_s)
        return int(least_s / row_s) if least_s < MANY_ROWS * row_s else MANY_ROWS

    @property
    def decode_us(self) -> int:
        return _whole_us(self.decode_s)

    @property
    def prefill_us(self) -> int:
        return _whole_us(self.prefill_s)


@dataclass(frozen=True)
class SpeedOfAll:
    """Of stages that a token goes through one after the other."""

    stages: tuple[Speed, ...]

    @property
    def decode_s(self) -> float:
        return sum(speed.decode_s for speed in self.stages)

    @property
    def decode_us(self) -> int:
        return _whole_us(self.decode_s)

    @property
    def prefill_us(self) -> int:
        return _whole_us(sum(speed.prefill_s for speed in self.stages))


def _whole_us(seconds: float) -> int:
    """As it fits into an announcement; 0 there means unknown."""
    return max(1, min(int(seconds * 1e6), 0xFFFFFFFF))


def _smooth(old: float, new: float) -> float:
    return new if not old else (1 - SMOOTHING) * old + SMOOTHING * new
