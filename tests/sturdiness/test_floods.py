"""Floods of what is valid one by one: whoever sends too much is refused, and nobody else waits for it."""

import asyncio
from collections import Counter
from ipaddress import IPv4Address

import pytest
from nectar_node.admission import MAX_SESSIONS_PER_OWNER
from nectar_node.parking import MAX_FRAMES_PER_PEER
from nectar_protocol.address import Address
from nectar_protocol.identity import Identity
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Routed, Step

from tests.sturdiness.peers import HANGS_S, Stranger, noise, numbers
from tests.sturdiness.witnesses import Honest

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOBODY = Identity.from_seed(b"x" * 32).peer_id
NOWHERE = (Address(IPv4Address("127.0.0.1"), 1),)


async def first_answers(stranger: Stranger, sessions: list[int]) -> Counter[object]:
    """What has come first of each session: the code of an error, or the type of anything else."""
    answers = [await stranger.receive(number) for number in sessions]
    return Counter(answer.code if isinstance(answer, Error) else type(answer) for answer in answers)


async def test_a_flood_of_opens_leaves_others_room(stranger: Stranger, other: Stranger, honest: Honest) -> None:
    wanted = [next(numbers) for _ in range(3 * MAX_SESSIONS_PER_OWNER)]
    tiny = stranger.request(max_length=1)
    for number in wanted:
        stranger.send(number, tiny)
    answers = await first_answers(stranger, wanted)
    assert answers == {Routed: MAX_SESSIONS_PER_OWNER, ErrorCode.BUSY: 2 * MAX_SESSIONS_PER_OWNER}
    await other.step(await other.open(), Step(1, 1, 0, noise(4)))
    honest.wait_for(3)
    await stranger.part()
    await other.sessions(2)
    await stranger.meet()


async def test_sessions_opened_and_closed_by_the_thousand_leave_nothing(stranger: Stranger) -> None:
    before = await stranger.status()
    for _ in range(4000):
        number = next(numbers)
        stranger.send(number, stranger.request())
        stranger.send(number, b"", Kind.CLOSE)
        await asyncio.sleep(0)
    after = await stranger.status()
    assert (after.sessions, after.kv_free) == (before.sessions, before.kv_free)


async def test_a_flood_of_questions_is_answered(stranger: Stranger, honest: Honest) -> None:
    asked = [next(numbers) for _ in range(10_000)]
    for number in asked:
        stranger.send(number, b"", Kind.ASK)
    honest.wait_for(2)
    for number in asked:
        await stranger.receive(number)


async def test_a_flood_of_early_steps_is_refused_and_another_peers_is_kept(stranger: Stranger, other: Stranger) -> None:
    unknown = [next(numbers) for _ in range(1000)]
    early_step = Step(1, 1, 0, noise(100))  # 100 KiB: all of them are more than the node may grow by
    for number in unknown:
        stranger.send(number, early_step)
    async with asyncio.timeout(HANGS_S):
        while sum(not stranger.inbox[number].empty() for number in unknown) < len(unknown) - MAX_FRAMES_PER_PEER:
            await asyncio.sleep(0.05)  # the rest waits, and is refused later
    early = next(numbers)
    other.send(early, Step(1, 1, 0, noise(2)))
    other.send(early, other.request())
    assert isinstance(await other.receive(early), Routed)
    assert isinstance(await other.receive(early), Step)
    assert await first_answers(stranger, unknown) == {ErrorCode.UNKNOWN_SESSION: len(unknown)}


async def test_a_flood_of_steps_leaves_others_their_turn(stranger: Stranger, other: Stranger, honest: Honest) -> None:
    sessions = [await stranger.open() for _ in range(16)]
    for number in sessions:
        for at in range(1, 101):
            stranger.send(number, Step(at, at, 0, noise(8)))
    honest.wait_for(3)
    await stranger.part()
    await other.sessions(1)
    await stranger.meet()


async def test_a_flood_of_places_with_neighbours_that_are_not_there_is_refused(stranger: Stranger) -> None:
    session = await stranger.open()
    for generation in range(2, 1000):
        stranger.send(session, Neighbours(generation, None, NOBODY, NOWHERE))
    while (answer := await stranger.receive(session)).generation != 999:
        assert answer.code is ErrorCode.UNREACHABLE
    assert answer.code is ErrorCode.UNREACHABLE
    stranger.send(session, Neighbours(1000, None, None))
    assert await stranger.receive(session) == Routed(1000)
    await stranger.step(session, Step(1, 1, 0, noise(1)))
