"""A session's place between its neighbours: who may speak, where outputs go, and what a replacement is sent."""

import asyncio
from ipaddress import IPv4Address

import pytest
import torch
from nectar_node.service import Service
from nectar_protocol.address import Address
from nectar_swarm.messages import ErrorCode, Neighbours, Routed, Step

from tests.node.service.peers import HANGS_S, KV, NOBODY, HandMade, alone, equal, numbers, request, span_of
from tests.node.sessions import noise

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_node_between_two_others_takes_from_the_one_and_gives_to_the_other(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    hidden = noise(1, 4)
    number = await client.open(request(prev=stranger.host.peer_id))
    stranger.send(number, Step(1, 1, 0, hidden))
    equal(await client.receive(number), alone(span_of(service), [hidden])[0])
    number = await client.open(request(next=stranger.host.peer_id, next_addresses=await stranger.host.addresses()))
    client.send(number, Step(1, 1, 0, hidden))
    equal(await stranger.receive(number), alone(span_of(service), [hidden])[0])
    assert client.inbox[number].empty()


async def test_a_step_that_comes_before_its_session_is_taken_when_it_opens(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    hidden, number = noise(1, 4), next(numbers)
    stranger.send(number, Step(1, 1, 0, hidden))
    await stranger.status()
    await client.open(request(prev=stranger.host.peer_id), number)
    equal(await client.receive(number), alone(span_of(service), [hidden])[0])


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
    want = alone(span_of(service), pieces)
    assert (replayed.first, replayed.last, replayed.position) == (1, 2, 0)
    equal(replayed, torch.cat(want[:2], 1))
    client.send(number, Step(3, 3, 5, pieces[2]))
    equal(await stranger.receive(number), want[2])
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
