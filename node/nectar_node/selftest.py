"""Does this span compute what it should? Asked once, before a node serves.

Checking names and shapes does not catch a family whose blocks need more than the previous block's hidden states.
Running the same tokens in two ways does: whole against step by step with a cache, and in one go against block ranges.
"""

import torch
from nectar_protocol.announcement import Profile

from nectar_node.errors import SpanError
from nectar_node.span import SpanModel

TOKENS = 3
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
    hidden = torch.randn(1, TOKENS, span.width, generator=generator)
    whole = _run(span, hidden, span.start, span.stop)
    cache = span.new_cache(span.start, span.stop)
    parts = [
        span.forward(
            hidden[:, a:b],
            cache,
            start=span.start,
            stop=span.stop,
            position_ids=torch.arange(a, b, device=span.device)[None],
        )
        for a, b in ((0, TOKENS - 1), (TOKENS - 1, TOKENS))
    ]
    agree(span, whole, torch.cat(parts, 1), "step by step with a cache")
    if span.blocks > 1:
        middle = span.start + span.blocks // 2
        agree(
            span,
            whole,
            _run(span, _run(span, hidden, span.start, middle), middle, span.stop),
            "in two ranges of blocks",
        )


def _run(span: SpanModel, hidden: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    positions = torch.arange(hidden.shape[1], device=span.device)[None]
    return span.forward(hidden, span.new_cache(start, stop), start=start, stop=stop, position_ids=positions)


def agree(span: SpanModel, whole: torch.Tensor, other: torch.Tensor, way: str) -> None:
    """Raise SpanError unless two ways of running the span gave the same, up to float noise."""
    error = ((whole - other).float().norm() / whole.float().norm().clamp(min=1e-9)).item()
    if not error <= TOLERANCE[span.profile]:
        raise SpanError(
            f"blocks [{span.start}, {span.stop}) of {span.model.config.model_type} do not give the same {way} "
            f"(relative difference {error:.2g}); this family cannot be served"
        )
