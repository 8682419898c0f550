"""Swarms of processes, the same model whole on this machine, and clients of the swarms."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar import AutoDistributedModelForCausalLM, Connection
from nectar_demo.processes import NodeProcess
from transformers import AutoModelForCausalLM

from benchmarks.models import VOCABULARY

Tokens = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> Any:
    """The whole model in this process."""
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def connect(tiny_llama: Path) -> Iterator[Callable[..., Any]]:
    """A client's model on a connection of its own to the swarm of a node."""
    connections: list[Connection] = []

    def open_model(address: str, **options: Any) -> Any:
        connections.append(Connection.open([address]))
        return AutoDistributedModelForCausalLM.from_pretrained(str(tiny_llama), connection=connections[-1], **options)

    yield open_model
    for connection in connections:
        connection.close()


@pytest.fixture(scope="session")
def one_node(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node of all blocks, for all tests that leave it as it is: a start takes seconds."""
    node = NodeProcess("one", tmp_path_factory.mktemp("one"), tiny_llama, "0:8").wait()
    yield node
    node.stop()


@pytest.fixture(scope="session")
def two_nodes(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Two nodes that overlap, for all tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("two")
    first = NodeProcess("first", folder, tiny_llama, "0:5").wait()
    second = NodeProcess("second", folder, tiny_llama, "3:8", [first.address]).wait()
    yield first, second
    for node in (first, second):
        node.stop()


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """Random token IDs [batch, length], the same for the same seed."""

    def make(length: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(2, VOCABULARY, (batch, length), generator=generator)

    return make
