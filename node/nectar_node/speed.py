"""How fast this node computes, measured from its work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nectar_node.span import SpanModel

PREFILL_TOKENS = 64
DECODE_RUNS, PREFILL_RUNS = 8, 2
SMOOTHING = 0.1


class Speed:
    """Moving averages of a decode step through the whole span, and of one token of a longer prompt, in seconds."""

    def __init__(self) -> None:
        self.decode_s = self.prefill_s = 0.0

    @contextmanager
    def measure(self, tokens: int, *, whole: bool = True) -> Iterator[None]:
        """Count what runs inside, if it is a whole span's and clearly a decode step or a prompt."""
        started = time.perf_counter()
        yield
        elapsed_s = time.perf_counter() - started
        if not whole:
            return
        if tokens == 1:
            self.decode_s = _smooth(self.decode_s, elapsed_s)
        elif tokens >= PREFILL_TOKENS // 2:
            self.prefill_s = _smooth(self.prefill_s, elapsed_s / tokens)

    @property
    def decode_us(self) -> int:
        return max(1, min(int(self.decode_s * 1e6), 0xFFFFFFFF))

    @property
    def prefill_us(self) -> int:
        return max(1, min(int(self.prefill_s * 1e6), 0xFFFFFFFF))


def _smooth(old: float, new: float) -> float:
    return new if not old else (1 - SMOOTHING) * old + SMOOTHING * new


def measure_span(span: SpanModel) -> Speed:
    """A first measurement, before any session: a prompt, then single tokens after it."""
    speed = Speed()
    cache = span.new_cache(span.start, span.stop)
    position = 0
    for tokens, runs in ((PREFILL_TOKENS, PREFILL_RUNS), (1, DECODE_RUNS)):
        for run in range(runs + 1):
            hidden = torch.zeros(1, tokens, span.width, dtype=span.dtype)
            positions = torch.arange(position, position + tokens, device=span.device)[None]
            if position:
                cache.crop(0)
            # The first run of a kind is a warm-up and not counted.
            with speed.measure(tokens, whole=run > 0):
                span.forward(hidden, cache, start=span.start, stop=span.stop, position_ids=positions).to("cpu")
            position += tokens
    return speed
