"""A node in a process of its own, an honest client beside it, and strangers.

All tests of this folder share one node and one event loop.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from nectar import AutoDistributedModelForCausalLM, Connection
from nectar_demo.processes import NodeProcess
from nectar_protocol.manifest import ModelID
from nectar_swarm.folder import LocalFolder
from nectar_swarm.host import Host, Listen
from nectar_swarm.peeraddress import PeerAddress
from transformers import AutoModelForCausalLM

from tests.sturdiness.peers import BLOCKS, Stranger
from tests.sturdiness.witnesses import Honest, Memory

session_fixture = pytest_asyncio.fixture(scope="session", loop_scope="session")


@pytest.fixture(scope="session")
def model(tiny_llama: Path) -> ModelID:
    return LocalFolder(tiny_llama).manifest.model_id


@pytest.fixture(scope="session")
def local(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def node(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """Serves the whole model to everybody."""
    node = NodeProcess("sturdy", tmp_path_factory.mktemp("sturdy"), tiny_llama, f"0:{BLOCKS}").wait()
    yield node
    node.stop()


@pytest.fixture(scope="session")
def honest(node: NodeProcess, tiny_llama: Path, local: Any) -> Iterator[Honest]:
    connection = Connection.open([node.address])
    model = AutoDistributedModelForCausalLM.from_pretrained(str(tiny_llama), connection=connection)
    with model.session(64) as session:
        thread = Honest(session, local)
        thread.start()
        thread.wake()
        thread.wait_for(3)
        yield thread
        thread.stop()
    connection.close()


@pytest.fixture(autouse=True)
def memory(node: NodeProcess, honest: Honest) -> Iterator[Memory]:
    """Whatever a test does, the node lives, keeps its bounds, and serves the honest client in the same session."""
    memory = Memory(node)
    memory.start()
    repairs = len(honest._session.repairs)
    honest.wake()
    yield memory
    honest.wait_for(3)
    honest.rest()
    memory.check()
    assert node.alive
    assert honest._session.repairs[repairs:] == []


@session_fixture
async def at(node: NodeProcess) -> PeerAddress:
    return PeerAddress.parse(node.address)


@session_fixture
async def strangers(at: PeerAddress, model: ModelID) -> AsyncIterator[list[Stranger]]:
    """Three, each with an identity of its own, which speak the protocol; the second can be dialled."""
    hosts = [await Host.start(listen=Listen("127.0.0.1") if number == 1 else None) for number in range(3)]
    strangers = [Stranger(host, at, model) for host in hosts]
    for each in strangers:
        await each.peers.start()
    yield strangers
    for each in strangers:
        await each.peers.close()
        await each.host.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(strangers: list[Stranger]) -> AsyncIterator[Stranger]:
    """One with a link to the node, and afterwards none: nothing of it is left there."""
    await strangers[0].meet()
    yield strangers[0]
    await strangers[0].part()


@pytest_asyncio.fixture(loop_scope="session")
async def other(strangers: list[Stranger]) -> AsyncIterator[Stranger]:
    await strangers[1].meet()
    yield strangers[1]
    await strangers[1].part()


@session_fixture
async def vandal(at: PeerAddress) -> AsyncIterator[Host]:
    """One that opens streams and knows nothing of frames."""
    host = await Host.start()
    await host.connect(at.peer, at.addresses)
    yield host
    await host.close()
