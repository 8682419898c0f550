"""How sessions end: by failure, by time, with the node."""

import asyncio
from typing import Any

import pytest
from nectar_node import service as service_module
from nectar_node.service import Service
from nectar_swarm.frames import Kind
from nectar_swarm.messages import ErrorCode, Step

from tests.node.service.peers import HANGS_S, KV, HandMade, numbers, request, span_of
from tests.node.sessions import noise

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.usefixtures("bystander")
async def test_a_computation_that_fails_ends_its_session_and_no_other(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = await client.open(request())
    with monkeypatch.context() as patch:

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("a secret of this machine")

        patch.setattr(span_of(service), "forward", fail)
        failed = await client.refusal(number, Step(1, 1, 0, noise(1, 2)))
    assert (failed.code, failed.text) == (ErrorCode.FAILED, "the computation failed: RuntimeError")
    assert "a secret of this machine" in caplog.text
    assert (await client.status()).sessions == 1
    await client.open(request(), number)


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
