"""What all tests share: caches and settings of their own, a small model, and swarms of real processes."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers.utils import logging

_cache = tempfile.TemporaryDirectory(prefix="nectar-test-cache-")
os.environ["NECTAR_CACHE"] = _cache.name
os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("NECTAR_HOME", "NECTAR_CONFIG", "NECTAR_INITIAL_PEERS", "NECTAR_MODEL"):
    os.environ.pop(name, None)

from nectar_demo.processes import NodeProcess  # noqa: E402

from benchmarks.models import make_llama  # noqa: E402 - after the environment that it reads
from tests.clock import Clock  # noqa: E402

settings.register_profile("nectar", deadline=None, max_examples=100)  # other work may share the machine
settings.load_profile("nectar")

StartNode = Callable[..., NodeProcess]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session", autouse=True)
def quiet_and_frugal() -> None:
    """One thread to compute with, and none of Transformers' bars."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight Llama of 8 blocks in several shards."""
    return make_llama("tiny", tmp_path_factory.mktemp("models"))


@pytest.fixture
def damaged_folder(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of a folder's own checkpoints that a test may spoil."""
    return lambda name: shutil.copytree(checkpoint_folder(name), tmp_path / name)


@pytest.fixture(scope="module")
def start_node(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    """Starts node processes of the tiny Llama; they end with the module."""
    folder = tmp_path_factory.mktemp("nodes")
    nodes: list[NodeProcess] = []

    def start(blocks: str | None, *peers: NodeProcess, options: tuple[str, ...] = (), wait: bool = True) -> NodeProcess:
        node = NodeProcess(f"node{len(nodes)}", folder, tiny_llama, blocks, [peer.address for peer in peers], options)
        nodes.append(node)
        return node.wait() if wait else node

    yield start
    for node in nodes:
        node.stop()
