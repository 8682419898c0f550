"""How fast this node computes, measured from its work."""

from dataclasses import dataclass

PROMPT_ROWS = 32  # from which an iteration without decoding tells what a prompt's token costs
SMOOTHING = 0.1


@dataclass
class Speed:
    """Moving averages, in seconds: a single token through the whole span; one token of a longer prompt; an iteration
    that only decodes, for however many sessions; and what each row of a prompt's chunk adds to one."""

    decode_s: float = 0.0
    prefill_s: float = 0.0
    iteration_s: float = 0.0
    added_s: float = 0.0

    def count(self, short_rows: int, prompt_rows: int, elapsed_s: float) -> None:
        """An iteration through the whole span took so long."""
        if not prompt_rows:
            self.iteration_s = _smooth(self.iteration_s, elapsed_s)
            if short_rows == 1:
                self.decode_s = _smooth(self.decode_s, elapsed_s)
        elif short_rows:
            self.added_s = _smooth(self.added_s, max(elapsed_s - self.iteration_s, 0.0) / prompt_rows)
        elif prompt_rows >= PROMPT_ROWS:
            self.prefill_s = _smooth(self.prefill_s, elapsed_s / prompt_rows)

    @property
    def decode_us(self) -> int:
        return max(1, min(int(self.decode_s * 1e6), 0xFFFFFFFF))

    @property
    def prefill_us(self) -> int:
        return max(1, min(int(self.prefill_s * 1e6), 0xFFFFFFFF))


def _smooth(old: float, new: float) -> float:
    return new if not old else (1 - SMOOTHING) * old + SMOOTHING * new
