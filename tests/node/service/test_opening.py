"""Which sessions a node opens, and that those it refuses reserve nothing."""

from typing import Any

import pytest
from nectar_node import admission
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.messages import ErrorCode, Step

from tests.node.service.peers import KV, HandMade, numbers, request
from tests.node.sessions import noise

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_node_says_what_it_is(client: HandMade) -> None:
    status = await client.status()
    assert (status.name, status.model, status.device, status.version) == ("bee", "tiny", "cpu", "0.0.1")
    assert (status.dtype, status.kv_total, status.kv_free) == ("float32", KV, KV)


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
    assert refused.text == f"1 positions of KV are wanted, 0 of {KV} are free"
    client.send(first, b"", Kind.CLOSE)
    await client.open(request(max_length=KV), second)


async def test_a_node_has_so_many_sessions_and_no_more(client: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_SESSIONS", 1)
    await client.open(request())
    assert (await client.refusal(next(numbers), request())).code is ErrorCode.BUSY


async def test_on_a_full_node_whoever_has_most_sessions_loses_the_one_unused_for_longest(
    client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_SESSIONS", 3)
    opened = [await client.open(request()) for _ in range(3)]
    assert (await stranger.refusal(next(numbers), request())).code is ErrorCode.BUSY  # all were used lately
    monkeypatch.setattr(admission, "EVICTABLE_S", -1.0)
    await client.step(opened[0], Step(1, 1, 0, noise(1, 2)))
    own = await stranger.open(request())
    assert (await client.receive(opened[1])).code is ErrorCode.EXPIRED
    assert (await stranger.refusal(next(numbers), request())).code is ErrorCode.BUSY  # it would have as many
    await stranger.step(own, Step(1, 1, 0, noise(1, 2)))
    await client.step(opened[0], Step(2, 2, 2, noise(1, 1)))


async def test_one_owner_has_so_many_sessions_and_leaves_the_others_theirs(
    client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_SESSIONS_PER_OWNER", 2)
    first, _ = [await client.open(request()) for _ in range(2)]
    refused = await client.refusal(next(numbers), request())
    assert (refused.code, refused.text) == (ErrorCode.BUSY, "2 sessions of yours are open")
    await stranger.open(request())
    await client.close(first)
    await client.open(request())


async def test_a_session_number_is_taken_while_its_session_lives(client: HandMade, stranger: HandMade) -> None:
    number = await client.open(request())
    assert (await client.refusal(number, request())).code is ErrorCode.DENIED
    assert (await stranger.refusal(number, request())).code is ErrorCode.DENIED
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    client.send(number, b"", Kind.CLOSE)
    await client.status()
    await stranger.open(request(), number)
