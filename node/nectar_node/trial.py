"""Trying a span out before it serves: which way it can be run, and how fast that is.

The way is the fastest whose results are those of Transformers' own cache.
"""

import logging
import time
from collections.abc import Callable, Sequence

import torch

from nectar_node.errors import SpanError
from nectar_node.packed import PackedRunner
from nectar_node.padded import PaddedRunner
from nectar_node.runner import Piece, Runner
from nectar_node.selftest import agree
from nectar_node.single import SingleRunner, TokenRunner
from nectar_node.span import SpanModel
from nectar_node.speed import Speed

WAYS: tuple[Callable[[SpanModel, int], Runner], ...] = (PackedRunner, PaddedRunner, SingleRunner, TokenRunner)
LENGTHS = (5, 3)  # of two sessions' first pieces; each then takes a chunk of two and a single token
ROOM = 16
MIN_POSITIONS = len(LENGTHS) * ROOM
PROMPT_TOKENS, PROMPT_RUNS, DECODE_RUNS = 64, 2, 8

log = logging.getLogger(__name__)


@torch.inference_mode()
def choose_runner(span: SpanModel, positions: int) -> Runner:
    """A runner with room for so many positions of KV, at least. Raises SpanError when none computes what it should."""
    reasons = []
    for way in WAYS:
        try:
            runner = way(span, max(positions, MIN_POSITIONS))
            _try(span, runner)
            return runner
        except torch.OutOfMemoryError as error:  # no other way needs less
            raise SpanError(f"{positions} positions of KV do not fit into this device's memory: {error}") from error
        except Exception as error:  # a family that does not fit may raise anything
            reasons.append(f"{way.__name__}: {error}")
            log.info("%s cannot be run by %s", span.model.config.model_type, reasons[-1])
    raise SpanError(f"{span.model.config.model_type} cannot be served: {'; '.join(reasons)}")


def _try(span: SpanModel, runner: Runner) -> None:
    """Run two sessions together that begin at different times, and each alone with Transformers' own cache."""
    generator = torch.Generator().manual_seed(1)
    hidden = [torch.randn(1, length + 3, span.width, generator=generator).to(span.dtype) for length in LENGTHS]
    kvs = [runner.reserve(span.start, span.stop, ROOM, (0,)) for _ in LENGTHS]
    outputs: list[list[torch.Tensor]] = [[] for _ in LENGTHS]
    positions = [0 for _ in LENGTHS]
    rounds = [[(0, LENGTHS[0])], [(0, 2), (1, LENGTHS[1])], [(0, 1), (1, 2)], [(1, 1)]]
    for together in rounds:
        pieces = []
        for session, tokens in together:
            at = positions[session]
            pieces.append(Piece(kvs[session], at, hidden[session][:, at : at + tokens]))
            positions[session] += tokens
        for (session, _), output in zip(together, _run(runner, pieces), strict=True):
            outputs[session].append(output)
    for kv, whole, out in zip(kvs, hidden, outputs, strict=True):
        cache = span.new_cache(span.start, span.stop)
        expected = span.forward(
            whole, cache, start=span.start, stop=span.stop, position_ids=span.positions(0, whole.shape[1])
        )
        agree(span, expected.cpu(), torch.cat(out, 1), "beside another session")
        runner.release(kv)


def _run(runner: Runner, pieces: Sequence[Piece]) -> list[torch.Tensor]:
    for piece in pieces:
        runner.prepare(piece)
    outputs = []
    for output in runner.run(pieces):
        if isinstance(output, Exception):
            raise output
        outputs.append(output)
    return outputs


@torch.inference_mode()
def measure(span: SpanModel, runner: Runner) -> Speed:
    """A first measurement, before any session: prompts, then single tokens after one."""
    speed = Speed()
    kv = runner.reserve(span.start, span.stop, min(2 * PROMPT_TOKENS, runner.kv_total), (0,))
    prompt = min(PROMPT_TOKENS, runner.kv_total // 2)
    for run in range(PROMPT_RUNS + 1):
        elapsed_s = _time(runner, Piece(kv, 0, torch.zeros(1, prompt, span.width, dtype=span.dtype)))
        if run:  # the first run of a kind is a warm-up
            speed.count(0, prompt, elapsed_s)
    for run in range(DECODE_RUNS + 1):  # each after the one before: recurrent state cannot be rolled back
        elapsed_s = _time(runner, Piece(kv, prompt + run, torch.zeros(1, 1, span.width, dtype=span.dtype)))
        if run:
            speed.count(1, 0, elapsed_s)
    runner.release(kv)
    return speed


def _time(runner: Runner, piece: Piece) -> float:
    started_s = time.perf_counter()
    _run(runner, [piece])
    return time.perf_counter() - started_s
