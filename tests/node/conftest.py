"""Small random checkpoints of several families, the whole models they came from, spans of them and their runners."""

from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nectar_node.runner import Runner
from nectar_node.selftest import self_test
from nectar_node.span import SpanModel
from nectar_node.trial import choose_runner
from nectar_swarm.anatomy import Anatomy, examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.folder import LocalFolder

from tests.families.checkpoints import write
from tests.node.engines import Bench, Doubling

POSITIONS = 1024
LoadSpan = Callable[..., SpanModel]


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint in many small shards, in the format that hubs hold; written once."""

    @cache
    def make(family: str) -> Path:
        return write(family, tmp_path_factory.mktemp(family))

    return make


@pytest.fixture(scope="session")
def anatomy_of(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Anatomy]:
    return cache(lambda family: examine(load_config(LocalFolder(checkpoint_folder(family)))))


@pytest.fixture(scope="session")
def whole_model(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """The family's causal LM as Transformers loads it."""

    @cache
    def load(family: str) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint_folder(family), dtype=torch.float32)
        return model.eval().requires_grad_(False)

    return load


@pytest.fixture(scope="session")
def load_span(checkpoint_folder: Callable[[str], Path], anatomy_of: Callable[[str], Anatomy]) -> LoadSpan:
    """Blocks [start, stop) of a family, loaded once and tested."""

    @cache
    def load(family: str, start: int, stop: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> SpanModel:
        checkpoint = Checkpoint(LocalFolder(checkpoint_folder(family)))
        span = SpanModel(checkpoint, anatomy_of(family), start, stop, dtype, torch.device(device))
        self_test(span)
        return span

    return load


@pytest.fixture(scope="session")
def choose(load_span: LoadSpan) -> Callable[..., Runner]:
    """The runner of a family's blocks [1, 5), chosen once: what earlier tests left in its arena is there."""

    @cache
    def runner(family: str, dtype: torch.dtype = torch.float32) -> Runner:
        return choose_runner(load_span(family, 1, 5, dtype), POSITIONS)

    return runner


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(Doubling())
    yield bench
    bench.engine.stop()
    bench.runner.allow()
    await bench.engine.finished.wait()
