"""A ledger, nodes that earn there, and models whose sessions pay."""

import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar import AutoDistributedModelForCausalLM, Connection
from nectar_ledger_client.client import LedgerClient
from nectar_protocol.identity import parse_peer_id
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_swarm.folder import LocalFolder
from nectar_swarm.keyfile import create_key
from transformers import AutoModelForCausalLM

from tests.client.swarm import eventually
from tests.integration.credits.paidnode import Job, PaidNode
from tests.ledger.api.served import LiveClock, Served, serve
from tests.ledger.world import World, person

BLOCKS = 8
ALICE = person("alice")


@pytest.fixture(scope="module")
def world(tiny_llama: Path) -> World:
    id = LocalFolder(tiny_llama).manifest.model_id
    entry = ModelEntry(id, 1, AuditState.SHADOW, (BlockCost(20_000_000, 4_000, 0),) * BLOCKS)
    return World(model=entry, start_ms=time.time_ns() // 1_000_000)


@pytest.fixture(scope="module")
def begun(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Callable[[], None]]]:
    """A ledger, and how to lose it."""
    clock = LiveClock(world.start_ms)
    orders = [world.publish_model(), world.grant(ALICE, 10**9)]
    served, stop = serve(tmp_path_factory.mktemp("ledger"), world, orders=orders, clock=clock)
    clock.is_live, lost = True, []

    def lose() -> None:
        if not lost:
            lost.append(True)
            stop()

    yield served, lose
    lose()


@pytest.fixture(scope="module")
def ledger(begun: tuple[Served, Callable[[], None]]) -> Served:
    return begun[0]


@pytest.fixture
def stop_ledger(begun: tuple[Served, Callable[[], None]]) -> Callable[[], None]:
    return begun[1]


Hire = Callable[..., PaidNode]


@pytest.fixture(scope="module")
def hire(ledger: Served, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hire]:
    """Starts a node that earns for the owner; all end with the module."""
    folder, nodes = tmp_path_factory.mktemp("nodes"), list[PaidNode]()

    def start(blocks: str, *peers: PaidNode, lie: str = "") -> PaidNode:
        key, seed = str(folder / f"{len(nodes)}.key"), sha256(b"owner").hexdigest()
        known = tuple(peer.address for peer in peers)
        nodes.append(PaidNode(Job(str(tiny_llama), blocks, key, ledger.url, seed, known, lie)))
        node = nodes[-1].wait()
        eventually(lambda: is_bound(ledger, node))
        return node

    yield start
    for node in nodes:
        node.stop()


def is_bound(ledger: Served, node: PaidNode) -> bool:
    return ledger.http.get(f"/v1/nodes/{parse_peer_id(node.peer).hex()}").status_code == 200


@pytest.fixture(scope="module")
def team(hire: Hire) -> list[PaidNode]:
    first = hire("0:4")
    return [first, hire("4:8", first)]


@pytest.fixture(scope="module")
def wallet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wallet") / "wallet.key"
    create_key(path, ALICE)
    return path


Open = Callable[..., Any]


@pytest.fixture
def open_model(tiny_llama: Path, team: list[PaidNode], ledger: Served) -> Iterator[Open]:
    connections: list[Connection] = []

    def make(**options: Any) -> Any:
        connections.append(Connection.open([team[0].address]))
        options = {"ledger": ledger.url} | options
        model = AutoDistributedModelForCausalLM.from_pretrained(str(tiny_llama), connection=connections[-1], **options)
        model.generation_config.eos_token_id = None
        return model

    yield make
    for connection in connections:
        connection.close()


@pytest.fixture(scope="module")
def local(tiny_llama: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture
def client(ledger: Served) -> Iterator[LedgerClient]:
    with LedgerClient(ledger.url) as client:
        yield client
