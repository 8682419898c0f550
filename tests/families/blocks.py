"""A span's output held against that of the same blocks in the whole model."""

import inspect
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from nectar_node.runner import Runner
from nectar_node.selftest import self_test
from nectar_node.span import SpanModel
from nectar_node.trial import choose_runner
from nectar_swarm.anatomy import examine, find_stack, load_config
from nectar_swarm.cachename import CACHE
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.source import LocalFolder
from transformers import DynamicCache

from tests.families.configs import BLOCKS, VOCAB

BATCH, STEPS = 2, (0, 12, 13, 14, 15, 16)  # where the prefill and each decode step begin; past the windows of 8
START, MIDDLE, STOP = 1, 3, BLOCKS - 1
Recorded = list[dict[int, tuple[torch.Tensor, torch.Tensor]]]


def load_span(folder: Path) -> SpanModel:
    """The blocks [START, STOP), tested as a node tests them."""
    source = LocalFolder(folder)
    anatomy = examine(load_config(source))
    span = SpanModel(Checkpoint(source), anatomy, START, STOP, torch.float32, torch.device("cpu"))
    self_test(span)
    return span


def runner_of(span: SpanModel) -> Runner:
    return choose_runner(span, 256)


def difference(span: SpanModel, whole: Any) -> float:
    """The largest, over a prefill, cached steps, parts of the span with caches of their own, and no cache."""
    caches = [span.new_cache(*blocks) for blocks in ((START, STOP), (START, MIDDLE), (MIDDLE, STOP))]
    largest = 0.0
    for (begin, end), blocks in zip(pairwise(STEPS), _record(whole), strict=True):
        positions = torch.arange(begin, end).expand(BATCH, -1)
        for cache, (start, stop) in zip(caches, ((START, STOP), (START, MIDDLE), (MIDDLE, STOP)), strict=True):
            if begin and not span.recurrent:
                cache.crop(0)
            out = span.forward(blocks[start][0], cache, start=start, stop=stop, position_ids=positions)
            largest = max(largest, _distance(out, blocks[stop - 1][1]))
        if not begin:
            out = span.forward(blocks[START][0], None, start=START, stop=STOP, position_ids=positions)
            largest = max(largest, _distance(out, blocks[STOP - 1][1]))
    return largest


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return (ours - theirs).abs().max().item()


def _record(whole: Any) -> Recorded:
    """Input and output of every block of the whole model, in each step."""
    steps: Recorded = []

    def hook(number: int) -> Callable[..., None]:
        def keep(module: Any, args: Any, kwargs: Any, out: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            steps[-1][number] = (given, out[0] if isinstance(out, tuple) else out)

        return keep

    owner, stack = find_stack(whole.base_model)
    handles = [
        block.register_forward_hook(hook(number), with_kwargs=True)
        for number, block in enumerate(getattr(owner, stack))
    ]
    token_ids = torch.randint(2, VOCAB, (BATCH, STEPS[-1]), generator=torch.Generator().manual_seed(7))
    cache = DynamicCache(config=whole.config)
    takes_positions = "position_ids" in inspect.signature(whole.forward).parameters
    with torch.inference_mode():
        for begin, end in pairwise(STEPS):
            steps.append({})
            positions = {"position_ids": torch.arange(begin, end).expand(BATCH, -1)} if takes_positions else {}
            whole(token_ids[:, begin:end], use_cache=True, **{CACHE: cache}, **positions)
    for handle in handles:
        handle.remove()
    return steps
