"""Clients and neighbours made by hand: they send what a test says, and keep what comes."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, count
from typing import Any

import pytest
import torch
from nectar_node.service import Service
from nectar_node.span import SpanModel
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.bills import Bill
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host
from nectar_swarm.link import WIRE_VERSIONS, Link
from nectar_swarm.messages import Error, Neighbours, Open, Routed, Step
from nectar_swarm.past import Past
from nectar_swarm.peers import Peers
from nectar_swarm.status import Status

from tests.node.sessions import START, STOP, Turn, cached

MODEL = ModelID(b"m" * 32)
KV = 256
HANGS_S = 60.0  # a test that waits so long has failed
NOBODY = Identity.from_seed(b"x" * 32).peer_id
Message = Routed | Step | Error | Status | Bill | Past
READERS: dict[Kind, Callable[[bytes], Message]] = {
    Kind.ROUTED: Routed.unpack,
    Kind.STEP: Step.unpack,
    Kind.ERROR: partial(Error.unpack, version=WIRE_VERSIONS.newest),
    Kind.STATUS: partial(Status.unpack, version=WIRE_VERSIONS.newest),
    Kind.BILL: Bill.unpack,
    Kind.PAST: Past.unpack,
}
numbers = count(1)


class HandMade:
    """One peer, with its inbox for each session."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.peers = Peers(host, self)
        self.inbox: dict[int, asyncio.Queue[tuple[PeerID, Message]]] = defaultdict(asyncio.Queue)

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        self.inbox[session].put_nowait((link.peer, READERS[kind](payload)))

    def on_dead(self, peer: PeerID, reason: str) -> None: ...

    async def meet(self, service: Service) -> None:
        self.link = await self.peers.connect(service.peers.host.peer_id, await service.peers.host.addresses())

    def send(self, session: int, message: Any, kind: Kind | None = None) -> None:
        kind = kind or {Open: Kind.OPEN, Step: Kind.STEP, Neighbours: Kind.REROUTE}[type(message)]
        self.link.send(session, kind, message if isinstance(message, bytes) else message.pack())

    async def receive(self, session: int) -> Any:
        async with asyncio.timeout(HANGS_S):
            return (await self.inbox[session].get())[1]

    async def status(self) -> Status:
        """What the node says of itself, after all that was sent to it before."""
        number = next(numbers)
        self.link.send(number, Kind.ASK)
        status: Status = await self.receive(number)
        return status

    async def open(self, request: Open, number: int | None = None) -> int:
        number = number or next(numbers)
        self.send(number, request)
        assert await self.receive(number) == Routed(request.neighbours.generation)
        return number

    async def step(self, session: int, step: Step) -> Step:
        self.send(session, step)
        answer = await self.receive(session)
        assert isinstance(answer, Step), answer
        return answer

    async def refusal(self, session: int, message: Any, kind: Kind | None = None) -> Error:
        self.send(session, message, kind)
        answer = await self.receive(session)
        assert isinstance(answer, Error), answer
        return answer

    async def close(self, session: int) -> None:
        self.send(session, b"", Kind.CLOSE)
        await self.status()


def span_of(service: Service) -> SpanModel:
    """The span of a service on one device."""
    (stage,) = service.loaded.stages
    return stage.span


def held_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until this is set, no step of the service is computed."""
    gate, forward = threading.Event(), span_of(service).forward

    def held(*args: Any, **kwargs: Any) -> torch.Tensor:
        gate.wait()
        return forward(*args, **kwargs)

    monkeypatch.setattr(span_of(service), "forward", held)
    return gate


def request(generation: int = 1, **changes: Any) -> Open:
    place = {name: changes.pop(name) for name in ("prev", "next", "next_addresses") if name in changes}
    neighbours = replace(Neighbours(generation, None, None), **place)
    return replace(Open(MODEL, START, STOP, 16, torch.float32, (0,), neighbours), **changes)


def alone(span: SpanModel, pieces: Sequence[torch.Tensor], start: int = START, stop: int = STOP) -> list[torch.Tensor]:
    """The span's own output for consecutive steps, without any service."""
    positions = accumulate((piece.shape[1] for piece in pieces), initial=0)
    return cached(span, [Turn(at, piece) for at, piece in zip(positions, pieces, strict=False)], start, stop)


def equal(answer: Step, want: torch.Tensor) -> None:
    assert torch.equal(answer.hidden, want)


def close(answer: Step, want: torch.Tensor) -> None:
    """Equal up to the noise of sums in another order."""
    torch.testing.assert_close(answer.hidden, want, rtol=0, atol=1e-3)
