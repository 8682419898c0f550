"""What does not fit is refused with its reason, and touches no session."""

import random
from typing import Any

import pytest
import torch
from nectar_node import parking
from nectar_node.service import Service
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Step

from tests.node.service.peers import NOBODY, HandMade, alone, equal, numbers, request, span_of
from tests.node.sessions import WIDTH, noise

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
    equal(answer, alone(span_of(service), pieces)[1])


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
