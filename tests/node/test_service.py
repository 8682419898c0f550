"""A node's service over real libp2p links: what it answers to honest clients, and how it refuses the others."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
import torch
from nectar_node import parking
from nectar_node import service as service_module
from nectar_node.kv import KVBudget
from nectar_node.service import About, Service
from nectar_node.span import SpanModel
from nectar_node.speed import Speed
from nectar_protocol.address import Address
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.host import Host, Listen
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Routed, Step
from nectar_swarm.peers import Peers
from nectar_swarm.status import Status

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = ModelID(b"m" * 32)
START, STOP, WIDTH = 1, 5, 64
KV = 256
HANGS_S = 60.0  # a test that waits so long has failed
NOBODY = Identity.from_seed(b"x" * 32).peer_id
LOOPBACK = Listen("127.0.0.1")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
Message = Routed | Step | Error | Status
READERS: dict[Kind, Callable[[bytes, int], Message]] = {
    Kind.ROUTED: lambda payload, version: Routed.unpack(payload),
    Kind.STEP: lambda payload, version: Step.unpack(payload),
    Kind.ERROR: Error.unpack,
    Kind.STATUS: Status.unpack,
}
numbers = count(1)


class HandMade:
    """A client or a neighbour made by hand: it sends what a test says, and keeps what comes."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.peers = Peers(host, self)
        self.inbox: dict[int, asyncio.Queue[tuple[PeerID, Message]]] = defaultdict(asyncio.Queue)

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        self.inbox[session].put_nowait((link.peer, READERS[kind](payload, link.version)))

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


@module_fixture
async def service(load_span: Callable[[str, int, int], SpanModel]) -> AsyncIterator[Service]:
    host = await Host.start(listen=LOOPBACK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_module, "SWEEP_S", 0.05)
        about = About("bee", "tiny", 6, "cpu", "0.0.1")
        service = Service(host, load_span("llama", START, STOP), MODEL, KVBudget(KV), Speed(), about)
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
    assert service.budget.free == KV


@pytest_asyncio.fixture(loop_scope="module")
async def bystander(client: HandMade, service: Service) -> AsyncIterator[None]:
    """A session of somebody else, which must go on as if nothing had happened."""
    hidden = noise(1, 9)
    want = run(service.span, hidden.split([6, 1, 1, 1], 1))
    number = await client.open(request())
    for at, position in ((0, 0), (1, 6)):
        piece = hidden.split([6, 1, 1, 1], 1)[at]
        assert torch.equal((await client.step(number, Step(at + 1, at + 1, position, piece))).hidden, want[at])
    yield
    for at in (2, 3):
        answer = await client.step(number, Step(at + 1, at + 1, 5 + at, hidden[:, 5 + at : 6 + at]))
        assert torch.equal(answer.hidden, want[at])


def request(generation: int = 1, **changes: Any) -> Open:
    place = {name: changes.pop(name) for name in ("prev", "next", "next_addresses") if name in changes}
    neighbours = replace(Neighbours(generation, None, None), **place)
    return replace(Open(MODEL, START, STOP, 16, torch.float32, (0,), neighbours), **changes)


def noise(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


def run(span: SpanModel, pieces: Any, start: int = START, stop: int = STOP) -> list[torch.Tensor]:
    """The span's own output for consecutive steps, without any service."""
    cache, position, outputs = span.new_cache(start, stop), 0, []
    for piece in pieces:
        if position:
            cache.crop(0)
        where = torch.arange(position, position + piece.shape[1]).expand(piece.shape[0], -1)
        outputs.append(span.forward(piece, cache, start=start, stop=stop, position_ids=where))
        position += piece.shape[1]
    return outputs


# Honest clients


@pytest.mark.parametrize(("start", "stop"), [(START, STOP), (2, 4)])
async def test_steps_give_the_spans_own_output_and_closing_gives_all_back(
    service: Service, client: HandMade, start: int, stop: int
) -> None:
    pieces = noise(2, 8).split([6, 1, 1], 1)
    number = await client.open(request(pads=(0, 0), start=start, stop=stop))
    assert (await client.status()).kv_free == KV - 2 * 16
    position = 0
    for at, (piece, want) in enumerate(zip(pieces, run(service.span, pieces, start, stop), strict=True), 1):
        answer = await client.step(number, Step(at, at, position, piece))
        assert (answer.first, answer.last, answer.position) == (at, at, position)
        assert torch.equal(answer.hidden, want)
        position += piece.shape[1]
    client.send(number, b"", Kind.CLOSE)
    status = await client.status()
    assert (status.kv_free, status.sessions) == (KV, 0)


async def test_a_node_says_what_it_is(client: HandMade) -> None:
    status = await client.status()
    assert (status.name, status.model, status.device, status.version) == ("bee", "tiny", "cpu", "0.0.1")
    assert (status.dtype, status.kv_total, status.kv_free) == ("float32", KV, KV)


async def test_steps_sent_ahead_are_answered_in_order(client: HandMade, service: Service) -> None:
    pieces = noise(1, 10).split(1, 1)
    number = await client.open(request())
    for at, piece in enumerate(pieces):
        client.send(number, Step(at + 1, at + 1, at, piece))
    for at, want in enumerate(run(service.span, pieces), 1):
        answer = await client.receive(number)
        assert answer.last == at
        assert torch.equal(answer.hidden, want)


async def test_an_earlier_position_rolls_the_kv_back(client: HandMade, service: Service) -> None:
    hidden, other = noise(1, 6), noise(1, 2, seed=1)
    number = await client.open(request())
    await client.step(number, Step(1, 1, 0, hidden[:, :4]))
    await client.step(number, Step(2, 2, 4, other))
    answer = await client.step(number, Step(3, 3, 4, hidden[:, 4:5]))
    torch.testing.assert_close(answer.hidden, run(service.span, hidden.split([4, 1, 1], 1))[1], rtol=0, atol=1e-4)
    answer = await client.step(number, Step(4, 4, 0, hidden[:, :4]))
    torch.testing.assert_close(answer.hidden, run(service.span, [hidden[:, :4]])[0], rtol=0, atol=1e-4)


async def test_a_reorder_gives_rows_the_past_of_others(client: HandMade, service: Service) -> None:
    past, new = noise(2, 5), noise(2, 1, seed=1)
    number = await client.open(request(pads=(0, 0)))
    await client.step(number, Step(1, 1, 0, past))
    answer = await client.step(number, Step(2, 2, 5, new, reorder=(1, 1)))
    want = run(service.span, [past[[1, 1]], new])[1]
    torch.testing.assert_close(answer.hidden, want, rtol=0, atol=1e-4)


async def test_padded_rows_give_what_they_give_alone(client: HandMade, service: Service) -> None:
    hidden = noise(2, 7)
    number = await client.open(request(pads=(3, 0)))
    prefill = (await client.step(number, Step(1, 1, 0, hidden[:, :6]))).hidden
    decode = (await client.step(number, Step(2, 2, 6, hidden[:, 6:]))).hidden
    alone = run(service.span, [hidden[:1, 3:6], hidden[:1, 6:]])
    torch.testing.assert_close(prefill[:1, 3:], alone[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(decode[:1], alone[1], rtol=0, atol=1e-4)


async def test_a_step_that_comes_again_is_not_computed_again(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    forward = service.span.forward

    def counted(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(hidden.shape[1])
        return forward(hidden, *args, **kwargs)

    monkeypatch.setattr(service.span, "forward", counted)
    number = await client.open(request())
    for _ in range(3):
        client.send(number, Step(1, 1, 0, noise(1, 4)))
    client.send(number, Step(2, 2, 4, noise(1, 1)))
    client.send(number, Step(1, 2, 0, noise(1, 5)))
    assert [(await client.receive(number)).last for _ in range(2)] == [1, 2]
    await client.status()
    assert client.inbox[number].empty()
    assert calls == [4, 1]


async def test_a_merged_replay_into_a_fresh_session_goes_on_with_the_same_output(client: HandMade) -> None:
    steps = [
        Step(1, 1, 0, noise(2, 5)),
        Step(2, 2, 5, noise(2, 1, seed=1)),
        Step(3, 3, 6, noise(2, 1, seed=2), reorder=(1, 0)),
        Step(4, 4, 6, noise(2, 2, seed=3)),  # takes the third back
        Step(5, 5, 8, noise(2, 1, seed=4)),
    ]
    history, old, fresh = History(), await client.open(request(pads=(0, 0))), await client.open(request(pads=(0, 0)))
    for step in steps:
        history.append(step)
        answer = await client.step(old, step)
    replay = list(history.after(0, settled=4))
    assert [(step.first, step.last) for step in replay] == [(1, 4), (5, 5)]
    for step in replay:
        again = await client.step(fresh, step)
    torch.testing.assert_close(again.hidden, answer.hidden, rtol=0, atol=1e-3)


# Places in a route


async def test_a_node_between_two_others_takes_from_the_one_and_gives_to_the_other(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    hidden = noise(1, 4)
    number = await client.open(request(prev=stranger.host.peer_id))
    stranger.send(number, Step(1, 1, 0, hidden))
    assert torch.equal((await client.receive(number)).hidden, run(service.span, [hidden])[0])
    number = await client.open(request(next=stranger.host.peer_id, next_addresses=await stranger.host.addresses()))
    client.send(number, Step(1, 1, 0, hidden))
    assert torch.equal((await stranger.receive(number)).hidden, run(service.span, [hidden])[0])
    assert client.inbox[number].empty()


async def test_a_step_that_comes_before_its_session_is_taken_when_it_opens(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    hidden, number = noise(1, 4), next(numbers)
    stranger.send(number, Step(1, 1, 0, hidden))
    await stranger.status()
    await client.open(request(prev=stranger.host.peer_id), number)
    assert torch.equal((await client.receive(number)).hidden, run(service.span, [hidden])[0])


async def test_a_reroute_sends_a_new_successor_what_it_lacks(
    client: HandMade, stranger: HandMade, service: Service
) -> None:
    pieces = noise(1, 6).split([4, 1, 1], 1)
    number = await client.open(request())
    for at, piece in enumerate(pieces[:2], 1):
        await client.step(number, Step(at, at, (0, 4)[at - 1], piece))
    where = await stranger.host.addresses()
    client.send(number, Neighbours(2, None, stranger.host.peer_id, where, sent=0, settled=2))
    assert await client.receive(number) == Routed(2)
    replayed = await stranger.receive(number)
    want = run(service.span, pieces)
    assert (replayed.first, replayed.last, replayed.position) == (1, 2, 0)
    assert torch.equal(replayed.hidden, torch.cat(want[:2], 1))
    client.send(number, Step(3, 3, 5, pieces[2]))
    assert torch.equal((await stranger.receive(number)).hidden, want[2])
    client.send(number, Neighbours(3, None, None, sent=2, settled=2))
    assert await client.receive(number) == Routed(3)
    assert (await client.receive(number)).last == 3


async def test_a_reroute_of_an_older_generation_changes_nothing(client: HandMade, stranger: HandMade) -> None:
    number = await client.open(request(generation=5))
    for generation in (4, 5):
        client.send(number, Neighbours(generation, NOBODY, stranger.host.peer_id, await stranger.host.addresses()))
    await client.status()
    assert client.inbox[number].empty()
    await client.step(number, Step(1, 1, 0, noise(1, 2)))


async def test_a_successor_that_cannot_be_reached_is_named_to_the_owner(client: HandMade) -> None:
    nowhere = (Address(IPv4Address("127.0.0.1"), 1),)
    number = next(numbers)
    refused = await client.refusal(number, request(next=NOBODY, next_addresses=nowhere))
    assert (refused.code, refused.peer, refused.generation) == (ErrorCode.UNREACHABLE, NOBODY, 1)
    client.send(number, Step(1, 1, 0, noise(1, 2)))
    client.send(number, Neighbours(2, None, None))
    answers = [await client.receive(number), await client.receive(number)]
    assert answers[0] == Routed(2)
    assert answers[1].last == 1


async def test_a_lost_successor_is_named_to_the_owner_and_outputs_wait(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(request(next=stranger.host.peer_id, next_addresses=await stranger.host.addresses()))
    stranger.peers.drop(service.peers.host.peer_id, "wants to")
    lost = await client.receive(number)
    assert (lost.code, lost.peer, lost.generation) == (ErrorCode.LOST, stranger.host.peer_id, 1)
    client.send(number, Step(1, 1, 0, noise(1, 2)))
    client.send(number, Neighbours(2, None, None))
    assert {type(await client.receive(number)) for _ in range(2)} == {Routed, Step}
    await stranger.meet(service)


async def test_an_owners_death_frees_its_sessions_and_no_others(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    kept = await client.open(request())
    for _ in range(3):
        await stranger.open(request())
    stranger.peers.drop(service.peers.host.peer_id, "wants to")
    async with asyncio.timeout(HANGS_S):
        while (await client.status()).sessions > 1:
            await asyncio.sleep(0.01)
    assert (await client.status()).kv_free == KV - 16
    await client.step(kept, Step(1, 1, 0, noise(1, 2)))
    await stranger.meet(service)


# Refusals


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": ModelID(bytes(32))}, ErrorCode.WRONG_MODEL),
        ({"start": 0}, ErrorCode.OUT_OF_RANGE),
        ({"stop": 6}, ErrorCode.OUT_OF_RANGE),
        ({"start": 3, "stop": 3}, ErrorCode.OUT_OF_RANGE),
        ({"start": 4, "stop": 2}, ErrorCode.OUT_OF_RANGE),
        ({"max_length": 0}, ErrorCode.OUT_OF_RANGE),
        ({"pads": (0, 16)}, ErrorCode.OUT_OF_RANGE),
        ({"max_length": KV + 1}, ErrorCode.BUSY),
        ({"pads": (0,) * 17}, ErrorCode.BUSY),
        ({"pads": (0,) * 512, "max_length": 0xFFFFFFFF}, ErrorCode.BUSY),
    ],
)
@pytest.mark.usefixtures("bystander")
async def test_a_session_that_cannot_be_served_is_refused_and_reserves_nothing(
    client: HandMade, changes: dict[str, Any], code: ErrorCode
) -> None:
    before = await client.status()
    refused = await client.refusal(next(numbers), request(generation=3, **changes))
    assert (refused.code, refused.generation) == (code, 3)
    after = await client.status()
    assert (after.kv_free, after.sessions) == (before.kv_free, before.sessions)


async def test_a_full_node_is_busy_until_somebody_closes(client: HandMade) -> None:
    first, second = next(numbers), next(numbers)
    await client.open(request(max_length=KV), first)
    refused = await client.refusal(second, request(max_length=1))
    assert refused.code is ErrorCode.BUSY
    assert refused.retry_after_ms == service_module.BUSY_RETRY_MS
    assert refused.text == f"1 positions of KV are wanted, 0 of {KV} are free"
    client.send(first, b"", Kind.CLOSE)
    await client.open(request(max_length=KV), second)


async def test_a_node_has_so_many_sessions_and_no_more(client: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_SESSIONS", 1)
    await client.open(request())
    assert (await client.refusal(next(numbers), request())).code is ErrorCode.BUSY


async def test_a_session_number_is_taken_while_its_session_lives(client: HandMade, stranger: HandMade) -> None:
    number = await client.open(request())
    assert (await client.refusal(number, request())).code is ErrorCode.DENIED
    assert (await stranger.refusal(number, request())).code is ErrorCode.DENIED
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    client.send(number, b"", Kind.CLOSE)
    await client.status()
    await stranger.open(request(), number)


def packed(**changes: Any) -> bytes:
    return request(**changes).pack()


HEAD = 32 + 2 + 2 + 4  # model, start, stop, max_length


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.OPEN, b""),
        (Kind.OPEN, packed()[:-1]),
        (Kind.OPEN, packed() + b"\0"),
        (Kind.OPEN, packed()[:HEAD] + b"\x09" + packed()[HEAD + 1 :]),
        (Kind.OPEN, packed()[: HEAD + 1] + bytes(2) + packed()[HEAD + 3 :]),
        (Kind.OPEN, packed()[: HEAD + 1] + b"\xff\xff" + bytes(4 * 0xFFFF)),
        (Kind.OPEN, packed(hold=b"h" * 0x4001)),
        (Kind.REROUTE, b"garbage"),
        (Kind.REROUTE, Neighbours(2, None, None).pack() + b"\0"),
    ],
)
@pytest.mark.usefixtures("bystander")
async def test_a_broken_message_about_a_session_is_refused_as_malformed(
    client: HandMade, kind: Kind, payload: bytes
) -> None:
    refused = await client.refusal(next(numbers), payload, kind)
    assert refused.code is ErrorCode.MALFORMED


def step_bytes(first: int = 2, last: int = 2, rows: int = 0, tensor: bytes = b"") -> bytes:
    return (
        first.to_bytes(4, "big") + last.to_bytes(4, "big") + (4).to_bytes(4, "big") + rows.to_bytes(2, "big") + tensor
    )


SHAPE = b"\0" + (1).to_bytes(2, "big") + (1).to_bytes(4, "big") + WIDTH.to_bytes(4, "big")
WRONG_STEPS: dict[str, tuple[Any, ErrorCode]] = {
    "dtype": (Step(2, 2, 4, noise(1, 1).bfloat16()), ErrorCode.OUT_OF_RANGE),
    "width": (Step(2, 2, 4, torch.zeros(1, 1, WIDTH - 1)), ErrorCode.OUT_OF_RANGE),
    "rows": (Step(2, 2, 4, noise(2, 1)), ErrorCode.OUT_OF_RANGE),
    "position": (Step(2, 2, 5, noise(1, 1)), ErrorCode.OUT_OF_RANGE),
    "too long": (Step(2, 2, 4, noise(1, 13)), ErrorCode.OUT_OF_RANGE),
    "reorder": (Step(2, 2, 4, noise(1, 1), reorder=(1,)), ErrorCode.OUT_OF_RANGE),
    "gap": (Step(3, 3, 4, noise(1, 1)), ErrorCode.FAILED),
    "nothing": (b"", ErrorCode.MALFORMED),
    "garbage": (b"\xa5" * 300, ErrorCode.MALFORMED),
    "step zero": (step_bytes(0, 0, tensor=SHAPE + bytes(4 * WIDTH)), ErrorCode.MALFORMED),
    "backwards": (step_bytes(3, 2, tensor=SHAPE + bytes(4 * WIDTH)), ErrorCode.MALFORMED),
    "more rows than there are bytes": (step_bytes(rows=512), ErrorCode.MALFORMED),
    "too many rows": (step_bytes(rows=0xFFFF), ErrorCode.MALFORMED),
    "a tensor cut short": (Step(2, 2, 4, noise(1, 1)).pack()[:-1], ErrorCode.MALFORMED),
    "a tensor too long": (Step(2, 2, 4, noise(1, 1)).pack() + b"\0", ErrorCode.MALFORMED),
    "a claim of 16 TB": (step_bytes(tensor=b"\0\x01\0" + b"\xff" * 8), ErrorCode.MALFORMED),
    "no tokens": (step_bytes(tensor=b"\0\0\x01" + bytes(4) + WIDTH.to_bytes(4, "big")), ErrorCode.MALFORMED),
}


@pytest.mark.parametrize("wrong", WRONG_STEPS)
@pytest.mark.usefixtures("bystander")
async def test_a_wrong_step_is_refused_and_the_session_goes_on(client: HandMade, service: Service, wrong: str) -> None:
    pieces = noise(1, 5).split([4, 1], 1)
    number = await client.open(request())
    await client.step(number, Step(1, 1, 0, pieces[0]))
    message, code = WRONG_STEPS[wrong]
    refused = await client.refusal(number, message, Kind.STEP)
    assert (refused.code, refused.generation) == (code, 0)
    answer = await client.step(number, Step(2, 2, 4, pieces[1]))
    assert torch.equal(answer.hidden, run(service.span, pieces)[1])


async def test_a_predecessors_wrong_step_is_told_to_the_owner_too(client: HandMade, stranger: HandMade) -> None:
    number = await client.open(request(prev=stranger.host.peer_id))
    refused = await stranger.refusal(number, Step(1, 1, 3, noise(1, 1)))
    assert refused.code is ErrorCode.OUT_OF_RANGE
    assert await client.receive(number) == refused


@pytest.mark.usefixtures("bystander")
async def test_a_step_of_a_peer_that_is_not_the_predecessor_is_denied(
    client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PARKED_S", 0.01)
    mine, theirs = await client.open(request()), await client.open(request(prev=NOBODY))
    assert (await stranger.refusal(mine, Step(1, 1, 0, noise(1, 2)))).code is ErrorCode.DENIED
    assert (await client.refusal(theirs, Step(1, 1, 0, noise(1, 2)))).code is ErrorCode.DENIED
    assert (await client.step(mine, Step(1, 1, 0, noise(1, 3)))).hidden.shape[1] == 3


@pytest.mark.usefixtures("bystander")
async def test_sessions_that_are_not_there_or_not_yours_are_unknown(
    client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PARKED_S", 0.01)
    for message, kind in ((Step(1, 1, 0, noise(1, 2)), None), (Neighbours(9, None, None), None)):
        assert (await client.refusal(next(numbers), message, kind)).code is ErrorCode.UNKNOWN_SESSION
    number = await client.open(request())
    refused = await stranger.refusal(number, Neighbours(9, None, NOBODY))
    assert refused.code is ErrorCode.UNKNOWN_SESSION
    stranger.send(number, b"", Kind.CLOSE)  # not answered, and without effect
    await stranger.status()
    await client.step(number, Step(1, 1, 0, noise(1, 2)))


async def test_a_strangers_garbage_is_answered_to_the_stranger_and_not_to_the_owner(
    client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(request())
    assert (await stranger.refusal(number, b"garbage", Kind.OPEN)).code is ErrorCode.MALFORMED
    assert (await stranger.refusal(number, b"garbage", Kind.REROUTE)).code is ErrorCode.MALFORMED
    await client.status()  # whatever was sent to the owner before has come
    assert client.inbox[number].empty()


@pytest.mark.usefixtures("bystander")
async def test_noise_of_every_kind_leaves_link_and_sessions_alone(
    client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PARKED_S", 0.0)
    dice = random.Random(0)
    number = await stranger.open(request())
    for _ in range(400):
        kind = dice.choice([Kind.OPEN, Kind.REROUTE, Kind.ROUTED, Kind.STEP, Kind.ERROR, Kind.STATUS])
        stranger.send(number, dice.randbytes(dice.choice([0, 1, 14, 40, 90, 200])), kind)
    await stranger.status()
    while not stranger.inbox[number].empty():
        assert isinstance(await stranger.receive(number), Error)
    await stranger.step(number, Step(1, 1, 0, noise(1, 2)))


@pytest.mark.usefixtures("bystander")
async def test_a_computation_that_fails_ends_its_session_and_no_other(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = await client.open(request())
    with monkeypatch.context() as patch:

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("a secret of this machine")

        patch.setattr(service.span, "forward", fail)
        failed = await client.refusal(number, Step(1, 1, 0, noise(1, 2)))
    assert (failed.code, failed.text) == (ErrorCode.FAILED, "the computation failed: RuntimeError")
    assert "a secret of this machine" in caplog.text
    assert (await client.status()).sessions == 1
    await client.open(request(), number)


# Ends


async def test_sessions_that_nobody_uses_expire(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await client.open(request())
    monkeypatch.setattr(service_module, "IDLE_S", -1.0)
    expired = await client.receive(number)
    assert expired.code is ErrorCode.EXPIRED
    assert (await client.status()).kv_free == KV


async def test_a_leaving_node_takes_no_sessions_and_waits_for_those_it_has(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await client.open(request())
    monkeypatch.setattr(service, "leaving", False)  # and so it is again after this test
    draining = asyncio.create_task(service.drain(HANGS_S))
    told = await client.receive(number)
    assert (told.code, told.generation) == (ErrorCode.LEAVING, 0)
    assert (await client.refusal(next(numbers), request(generation=2))).code is ErrorCode.LEAVING
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    assert not draining.done()
    client.send(number, b"", Kind.CLOSE)
    assert await draining == 0


async def test_a_leaving_node_does_not_wait_for_ever(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.open(request())
    monkeypatch.setattr(service, "leaving", False)
    assert await service.drain(0.01) == 1
