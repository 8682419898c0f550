"""Peers of wire version 1 beside today's: each reads the other's refusals and status, on real links."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import torch
from nectar import Connection
from nectar_demo.processes import NodeProcess
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Decoder, Kind, encode
from nectar_swarm.host import Host, Listen
from nectar_swarm.messages import Error, ErrorCode, Hello, Neighbours, Open
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.peers import PROTOCOL
from nectar_swarm.status import Status

HANGS_S = 60.0
ALONE = Neighbours(1, None, None)
STATUS = Status(7, 9, 1, 2, 8, "old", "a model", "cpu", "float32", "0.1.0", wait_us=5, decode_us=6)
FULL = Error(ErrorCode.BUSY, "every place is taken", 1, retry_after_ms=5)


class OldStream:
    """One stream as a peer of version 1 reads and writes it, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.decoder = reader, writer, Decoder()
        self.waiting: deque[tuple[int, Kind, bytes]] = deque()

    async def greet(self) -> None:
        self.send(0, Kind.HELLO, Hello(1, 1).pack())
        assert Hello.unpack(await self.receive(Kind.HELLO)) == Hello(1, 3)

    def send(self, session: int, kind: Kind, payload: bytes = b"") -> None:
        self.writer.write(b"".join(encode(session, kind, payload)))

    async def messages(self) -> AsyncIterator[tuple[int, Kind, bytes]]:
        while True:
            while self.waiting:
                session, kind, payload = self.waiting.popleft()
                if kind is Kind.PING:
                    self.send(0, Kind.PONG, payload)
                yield session, kind, payload
            if not (data := await self.reader.read(1 << 16)):
                return
            self.waiting.extend(self.decoder.feed(data))

    async def receive(self, wanted: Kind) -> bytes:
        async with asyncio.timeout(HANGS_S):
            async for _, kind, payload in self.messages():
                if kind is wanted:
                    return payload
        raise AssertionError(f"the stream ended without {wanted.name}")

    async def serve(self) -> None:
        """As a node that answers every question and refuses every session."""
        await self.greet()
        async for session, kind, _ in self.messages():
            match kind:
                case Kind.ASK:
                    self.send(session, Kind.STATUS, STATUS.pack(1))
                case Kind.OPEN:
                    self.send(session, Kind.ERROR, FULL.pack(1))
        self.writer.close()


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    """One that nobody has used, since its status counts."""
    return start_node("0:8")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = await Host.start(listen=Listen("127.0.0.1"))
    yield host
    await host.close()


async def test_a_node_answers_a_client_of_version_1_in_its_own_layout(node: NodeProcess, host: Host) -> None:
    at = PeerAddress.parse(node.address)
    await host.connect(at.peer, at.addresses)
    stream = OldStream(*await host.open_stream(at.peer, PROTOCOL))
    await stream.greet()
    stream.send(1, Kind.ASK)
    status = Status.unpack(await stream.receive(Kind.STATUS), 1)
    assert (status.blocks, status.name, status.kv_free) == (8, node.name, status.kv_total)
    assert (status.wait_us, status.decode_us) == (0, 0)
    stream.send(2, Kind.OPEN, Open(ModelID(bytes(32)), 0, 8, 10, torch.float32, (0,), ALONE).pack())
    error = Error.unpack(await stream.receive(Kind.ERROR), 1)
    assert (error.code, error.generation, error.retry_after_ms) == (ErrorCode.WRONG_MODEL, 1, 0)
    assert error.text.startswith("this node serves model")
    stream.writer.close()


async def test_a_client_reads_a_node_of_version_1(node: NodeProcess, host: Host) -> None:
    async def accept(peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await OldStream(reader, writer).serve()

    await host.serve(PROTOCOL, accept)
    addresses = await host.addresses()
    connection = await asyncio.to_thread(Connection.open, [node.address])
    refusals: asyncio.Queue[Error] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    class Asker:
        def on_message(self, link: Any, kind: Kind, payload: bytes) -> None:
            if kind is Kind.ERROR:
                loop.call_soon_threadsafe(refusals.put_nowait, Error.unpack(payload, link.version))

        def on_dead(self, peer: PeerID, reason: str) -> None: ...

        def abandon(self) -> None: ...

    async def open_session() -> int:
        link = await connection.link(host.peer_id, addresses)
        link.send(connection.add(Asker()), Kind.OPEN, b"anything")
        return link.version

    try:
        status = await asyncio.to_thread(connection.run, connection.scout.ask(host.peer_id, addresses))
        assert (status.kv_free, status.name, status.wait_us, status.decode_us) == (7, "old", 0, 0)
        assert await asyncio.to_thread(connection.run, open_session()) == 1
        async with asyncio.timeout(HANGS_S):
            refusal = await refusals.get()
        assert (refusal.code, refusal.text, refusal.retry_after_ms) == (FULL.code, FULL.text, 0)
    finally:
        await asyncio.to_thread(connection.close)
