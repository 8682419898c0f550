"""Peers made by hand that send a node what no honest peer sends."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import torch
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host
from nectar_swarm.link import WIRE_VERSIONS, Link
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Routed, Step
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.peers import PROTOCOL, Peers
from nectar_swarm.status import Status

HANGS_S = 60.0  # a test that waits so long has failed
BLOCKS, WIDTH = 8, 256
READERS: dict[Kind, Any] = {
    Kind.ROUTED: Routed.unpack,
    Kind.STEP: Step.unpack,
    Kind.ERROR: partial(Error.unpack, version=WIRE_VERSIONS.newest),
    Kind.STATUS: partial(Status.unpack, version=WIRE_VERSIONS.newest),
}
KINDS: dict[type, Kind] = {Open: Kind.OPEN, Step: Kind.STEP, Neighbours: Kind.REROUTE}
numbers = count(1)


def noise(tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


class Stranger:
    """One that speaks the protocol, with its inbox for each session."""

    def __init__(self, host: Host, node: PeerAddress, model: ModelID) -> None:
        self.host, self.node, self.model = host, node, model
        self.peers = Peers(host, self)
        self.inbox: defaultdict[int, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.lost = asyncio.Event()
        self.link: Any = None

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        self.inbox[session].put_nowait(READERS[kind](payload))

    def on_dead(self, peer: PeerID, reason: str) -> None:
        self.lost.set()

    async def meet(self) -> None:
        self.link = await self.peers.connect(self.node.peer, self.node.addresses)
        self.lost.clear()

    async def part(self) -> None:
        """The node ends what we have there, as soon as it notices."""
        self.peers.drop(self.node.peer, "was left")
        self.inbox.clear()

    def request(self, generation: int = 1, **changes: Any) -> Open:
        """An OPEN for all blocks, alone in its route; keywords change fields of it or of its place."""
        place = {name: changes.pop(name) for name in ("prev", "next", "next_addresses", "sent") if name in changes}
        neighbours = replace(Neighbours(generation, None, None), **place)
        return replace(Open(self.model, 0, BLOCKS, 16, torch.float32, (0,), neighbours), **changes)

    def send(self, session: int, message: Any, kind: Kind | None = None) -> None:
        data = message if isinstance(message, bytes) else message.pack()
        self.link.send(session, kind or KINDS[type(message)], data)

    async def receive(self, session: int) -> Any:
        async with asyncio.timeout(HANGS_S):
            return await self.inbox[session].get()

    async def open(self, request: Open | None = None) -> int:
        number = next(numbers)
        self.send(number, request or self.request())
        answer = await self.receive(number)
        assert isinstance(answer, Routed), answer
        return number

    async def step(self, session: int, step: Step) -> Step:
        self.send(session, step)
        answer = await self.receive(session)
        assert isinstance(answer, Step), answer
        return answer

    async def refusal(self, session: int, message: Any, kind: Kind | None = None) -> ErrorCode:
        self.send(session, message, kind)
        answer = await self.receive(session)
        assert isinstance(answer, Error), answer
        return answer.code

    async def status(self) -> Status:
        """What the node says of itself, after all that was sent to it before."""
        number = next(numbers)
        self.send(number, b"", Kind.ASK)
        status: Status = await self.receive(number)
        return status

    async def sessions(self, wanted: int) -> None:
        """Until the node has so many."""
        async with asyncio.timeout(HANGS_S):
            while (await self.status()).sessions != wanted:
                await asyncio.sleep(0.02)

    def answers(self, session: int) -> list[Any]:
        """All that has come of a session so far."""
        box = self.inbox[session]
        return [box.get_nowait() for _ in range(box.qsize())]


async def stream(host: Host, node: PeerAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await host.open_stream(node.peer, PROTOCOL)


async def read_to_the_end(reader: asyncio.StreamReader) -> None:
    """Until the node has closed the stream."""
    async with asyncio.timeout(HANGS_S):
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionError:
            pass
