"""Does this span compute what it should? Asked once, before a node serves.

Checking names and shapes does not catch a family whose blocks need more than the previous block's hidden states.
Running the same tokens in several ways does: whole against step by step with a cache, beside a second session, after a
rollback, and in block ranges.
"""

import torch
from nectar_protocol.announcement import Profile

from nectar_node.errors import SpanError
from nectar_node.span import SpanModel

# Of two sessions, the positions where steps begin and end: a prompt longer than convolutions are, and one shorter.
LONG, SHORT = (0, 5, 6, 7, 8), (0, 2, 3)
# Relative to the output's size: float noise of another order of summation, per format.
# int8 rounds inputs too, by rows and what stands out in any of them; nf4 computes in bfloat16 on a CPU.
TOLERANCE = {Profile.F32: 1e-3, Profile.BF16: 0.1, Profile.FP16: 0.05, Profile.INT8: 0.1, Profile.NF4: 0.1}


def self_test(span: SpanModel) -> None:
    """Raise SpanError unless the span's different ways of running agree."""
    try:
        _compare(span)
    except SpanError:
        raise
    except Exception as error:  # a family that does not fit may raise anything
        raise SpanError(
            f"{span.model.config.model_type} cannot be served: it fails on its own tokens: {error}"
        ) from error


def _compare(span: SpanModel) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, other = (torch.randn(1, steps[-1], span.width, generator=generator) for steps in (LONG, SHORT))
    whole = _run(span, hidden, span.start, span.stop)
    long, short = _Session(span, hidden, LONG), _Session(span, other, SHORT)
    for _ in SHORT[1:]:
        long.step()
        short.step()
    long.step()
    long.step()
    agree(span, whole, long.output, "step by step with a cache")
    agree(span, _run(span, other, span.start, span.stop), short.output, "in a second session")
    if not span.recurrent:
        long.take_back()
        long.step()
        agree(span, whole, long.output, "after a rollback")
    if span.blocks > 1:
        middle = span.start + span.blocks // 2
        agree(
            span,
            whole,
            _run(span, _run(span, hidden, span.start, middle), middle, span.stop),
            "in two ranges of blocks",
        )


class _Session:
    """Tokens that go through the span in steps, with a cache."""

    def __init__(self, span: SpanModel, hidden: torch.Tensor, steps: tuple[int, ...]) -> None:
        self._span, self._hidden, self._steps = span, hidden, steps
        self._cache = span.new_cache(span.start, span.stop)
        self._outputs: list[torch.Tensor] = []

    @property
    def output(self) -> torch.Tensor:
        return torch.cat(self._outputs, 1)

    def step(self) -> None:
        span, (start, stop) = self._span, self._steps[len(self._outputs) :][:2]
        if start and not span.recurrent:
            self._cache.crop(0)  # what was recorded before the last step
        out = span.forward(
            self._hidden[:, start:stop],
            self._cache,
            start=span.start,
            stop=span.stop,
            position_ids=span.positions(start, stop),
        )
        self._outputs.append(out)

    def take_back(self) -> None:
        """Undo the last step."""
        self._outputs.pop()
        self._cache.crop(self._steps[len(self._outputs)] - self._steps[len(self._outputs) + 1])


def _run(span: SpanModel, hidden: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    positions = span.positions(0, hidden.shape[1])
    return span.forward(hidden, span.new_cache(start, stop), start=start, stop=stop, position_ids=positions)


def agree(span: SpanModel, whole: torch.Tensor, other: torch.Tensor, way: str) -> None:
    """Raise SpanError unless two ways of running the span gave the same, up to float noise."""
    error = ((whole - other).float().norm() / whole.float().norm().clamp(min=1e-9)).item()
    if not error <= TOLERANCE[span.profile]:
        raise SpanError(
            f"blocks [{span.start}, {span.stop}) of {span.model.config.model_type} do not give the same {way} "
            f"(relative difference {error:.2g}); this family cannot be served"
        )
