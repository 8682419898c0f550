"""A node's service over real libp2p links, and peers made by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from nectar_node import service as service_module
from nectar_node.about import About
from nectar_node.archive import Archive
from nectar_node.packed import PackedRunner
from nectar_node.service import Service
from nectar_node.span import SpanModel
from nectar_node.speed import Speed
from nectar_node.stage import Loaded, Stage
from nectar_node.till.till import Till
from nectar_swarm.host import Host, Listen
from nectar_swarm.messages import Step

from tests.ledger.api.served import Clock
from tests.node.service.peers import HANGS_S, KV, MODEL, HandMade, alone, equal, request, span_of
from tests.node.sessions import START, STOP, noise

LOOPBACK = Listen("127.0.0.1")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    """With room for whatever a test sends."""
    archive = Archive(1 << 30)
    yield archive
    archive.close()


@pytest.fixture(scope="module")
def clock() -> Clock:
    """Of what a test hands it to."""
    return Clock()


@pytest.fixture(scope="module")
def till() -> Till | None:
    """None: nothing is metered."""
    return None


@pytest.fixture(scope="module")
def key_file() -> Path | None:
    """Of the node; None: any key."""
    return None


@module_fixture
async def service(
    load_span: Callable[..., SpanModel], archive: Archive, till: Till | None, key_file: Path | None
) -> AsyncIterator[Service]:
    host = await Host.start(key_file=key_file, listen=LOOPBACK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_module, "SWEEP_S", 0.05)
        about = About("bee", "tiny", 6, "cpu", "0.0.1")
        span = load_span("llama", START, STOP)
        loaded = Loaded((Stage(span, PackedRunner(span, KV), Speed()),))
        service = Service(host, loaded, archive, MODEL, about, till=till)
        await service.start()
        yield service
        await service.close()
    await host.close()


async def hand_made(service: Service, listen: Listen | None) -> AsyncIterator[HandMade]:
    host = await Host.start(listen=listen)
    peer = HandMade(host)
    await peer.peers.start()
    await peer.meet(service)
    yield peer
    await peer.peers.close()
    await host.close()


@module_fixture
async def client(service: Service) -> AsyncIterator[HandMade]:
    async for peer in hand_made(service, None):
        yield peer


@module_fixture
async def stranger(service: Service) -> AsyncIterator[HandMade]:
    async for peer in hand_made(service, LOOPBACK):
        yield peer


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _every_session_ends(service: Service) -> AsyncIterator[None]:
    """Whatever a test leaves open is closed, and its KV must be there again."""
    yield
    for session in list(service._sessions.values()):
        service._forget(session)
    async with asyncio.timeout(HANGS_S):
        while service.admission.store.kv_free != KV:  # once the running iteration has ended
            await asyncio.sleep(0)


@pytest_asyncio.fixture(loop_scope="module")
async def bystander(client: HandMade, service: Service) -> AsyncIterator[None]:
    """A session of somebody else, which must go on as if nothing had happened."""
    pieces = noise(1, 9).split([6, 1, 1, 1], 1)
    want = alone(span_of(service), pieces)
    number = await client.open(request())
    for at, position in ((0, 0), (1, 6)):
        equal(await client.step(number, Step(at + 1, at + 1, position, pieces[at])), want[at])
    yield
    for at in (2, 3):
        equal(await client.step(number, Step(at + 1, at + 1, 5 + at, pieces[at])), want[at])
