"""Small random checkpoints for the client's own part of a model, candidates for routes, and swarms made by hand."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from nectar import scout
from nectar.connection import Connection
from nectar.route import Route
from nectar.routing import Candidate
from nectar.session import Session
from nectar_protocol.identity import Identity

from tests.client.node import BLOCKS, MODEL, Node
from tests.client.swarm import Swarm

TWIN_US = 10_000_000

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=None, tie_word_embeddings=False,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=128, hidden_size=64, n_layer=6, n_head=4, eos_token_id=None),
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint in many small shards; written once."""

    @cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(CONFIGS[family]()).save_pretrained(folder, max_shard_size="20KB")
        return folder

    return make


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """A node by number, with the blocks it serves and what it costs."""

    def make(number: int, start: int, stop: int, decode_s: float = 0.01, rtt_s: float = 0.01) -> Candidate:
        peer = Identity.from_seed(number.to_bytes(32, "big")).peer_id
        return Candidate(peer, (), start, stop, decode_s, rtt_s)

    return cache(make)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """Seven nodes made by hand that serve nothing yet."""
    swarm = Swarm(tmp_path_factory.mktemp("keys"))
    for _ in range(7):
        swarm.add()
    yield swarm
    swarm.close()


@pytest.fixture
def swarm(stage: Swarm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    """The same for one test, which must not have made a node stumble. Clients wait until all living nodes are met."""
    monkeypatch.setattr(scout, "LOOK_S", 20.0)
    monkeypatch.setattr(scout, "GRACE_S", 20.0)
    yield stage
    faults = list(stage.faults)
    stage.faults.clear()
    stage.clear()
    assert not faults


@pytest.fixture
def three(swarm: Swarm) -> list[Node]:
    """Nodes of two blocks each, and for each, three places on, a slower twin that a route does not take at first."""
    for at, span in enumerate([(0, 2), (2, 4), (4, 6)]):
        swarm.run(swarm.nodes[at].serve(*span, decode_us=1_000))
        swarm.run(swarm.nodes[at + 3].serve(*span, decode_us=TWIN_US))
    return swarm.nodes[:3]


@pytest.fixture
def connection(swarm: Swarm) -> Iterator[Connection]:
    connection = Connection.open([swarm.address])
    yield connection
    connection.close()


@pytest.fixture
def session(connection: Connection) -> Session:
    return Session(connection, MODEL, Route(BLOCKS), torch.float32, 64, patience_s=30.0)
