"""Room for sessions: idle ones lose their KV and never their past, and a full node says so."""

import asyncio
import random
from collections.abc import Iterator

import pytest
import torch
from nectar_node import admission
from nectar_node.archive import Archive
from nectar_node.service import Service
from nectar_swarm.messages import ErrorCode, Routed, Step

from tests.node.service.peers import HANGS_S, KV, HandMade, close, held_up, numbers, request, span_of
from tests.node.sessions import WIDTH, Turn, noise, recomputed

pytestmark = pytest.mark.asyncio(loop_scope="module")
LENGTH, BATCH = 24, 3
SESSION_BYTES = 2 * 4 * WIDTH  # of one position: what is received and what is sent
LITTLE = {"max_length": LENGTH, "pads": (0,) * BATCH}
HISTORY = SESSION_BYTES * 3 * KV


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    """With room for three sessions as large as the KV, of which most lies on disk."""
    archive = Archive(HISTORY, memory_bytes=4 * WIDTH, retention_s=0.0)
    yield archive
    archive.close()


@pytest.fixture
def everybody_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "EVICTABLE_S", -1.0)


# A rollback, a reorder, both at once, drafts that were taken back, then what comes after the eviction.
SCRIPT = (
    (0, 9, ()), (9, 3, ()), (10, 1, (2, 0, 0)), (11, 1, (1, 1, 2)), (12, 4, ()), (13, 1, (0, 2, 1)), (6, 5, (1, 2, 1)),
    (11, 1, ()), (12, 1, (2, 2, 0)), (8, 2, ()), (10, 1, (0, 0, 1)), (11, 6, ()),
)  # fmt: skip
TURNS = [Turn(at, noise(BATCH, tokens, seed), order) for seed, (at, tokens, order) in enumerate(SCRIPT)]


async def play(client: HandMade, number: int, turns: list[Turn], want: list[torch.Tensor], first: int) -> None:
    """A session's steps from number `first`, each answered as it should be."""
    for at, (turn, expected) in enumerate(zip(turns, want, strict=True), first):
        close(await client.step(number, Step(at, at, turn.position, turn.hidden, turn.reorder)), expected)


async def evict(service: Service, stranger: HandMade) -> None:
    """Somebody needs all the KV, uses some of it, and goes."""
    greedy = await stranger.open(request(max_length=KV))
    assert not [session for session in service._sessions.values() if session.kv is not None][1:]
    await stranger.step(greedy, Step(1, 1, 0, noise(1, 20, seed=77)))
    await stranger.close(greedy)


@pytest.mark.usefixtures("everybody_is_idle")
@pytest.mark.parametrize("pads", [(0, 0, 0), (2, 2, 2)])
@pytest.mark.parametrize("steps", range(len(SCRIPT)))
async def test_an_evicted_session_goes_on_as_if_nothing_had_been(
    service: Service, client: HandMade, stranger: HandMade, steps: int, pads: tuple[int, ...]
) -> None:
    want = recomputed(span_of(service), TURNS, pads)
    number = await client.open(request(max_length=LENGTH, pads=pads))
    await play(client, number, TURNS[:steps], want[:steps], 1)
    await evict(service, stranger)
    assert service._sessions[number].kv is None
    await play(client, number, TURNS[steps:], want[steps:], steps + 1)


@pytest.mark.usefixtures("everybody_is_idle")
async def test_sessions_may_take_each_others_kv_in_turns(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    pads = (0,) * BATCH
    peers, want = (client, stranger), recomputed(span_of(service), TURNS, pads)
    length = KV // BATCH  # both together do not fit
    own = [await peer.open(request(max_length=length, pads=pads)) for peer in peers]
    for at, (turn, expected) in enumerate(zip(TURNS, want, strict=True), 1):
        for peer, number in zip(peers, own, strict=True):
            close(await peer.step(number, Step(at, at, turn.position, turn.hidden, turn.reorder)), expected)
            assert [session.number for session in service._sessions.values() if session.kv is not None] == [number]


@pytest.mark.usefixtures("everybody_is_idle")
async def test_sessions_that_come_and_go_at_random_all_get_what_each_gets_alone(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    dice, pads = random.Random(0), (0,) * BATCH
    want = recomputed(span_of(service), TURNS, pads)

    async def run(peer: HandMade) -> None:
        """Three sessions, a step of one after a step of another; three of all six have KV at a time."""
        done = {await peer.open(request(max_length=LENGTH, pads=pads)): 0 for _ in range(3)}
        while ready := [number for number, at in done.items() if at < len(TURNS)]:
            number = dice.choice(ready)
            at = done[number]
            await play(peer, number, TURNS[at : at + 1], want[at : at + 1], at + 1)
            done[number] += 1

    await asyncio.gather(run(client), run(stranger))


async def test_who_was_here_lately_keeps_its_kv(service: Service, client: HandMade, stranger: HandMade) -> None:
    number = await client.open(request())
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    refused = await stranger.refusal(next(numbers), request(max_length=KV))
    assert refused.code is ErrorCode.BUSY
    assert refused.text == f"{KV} positions of KV are wanted, {KV - 16} of {KV} are free"
    assert service._sessions[number].kv is not None


@pytest.mark.usefixtures("everybody_is_idle")
async def test_nobody_is_evicted_for_a_session_that_would_not_fit_even_so(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(request())
    refused = await stranger.refusal(next(numbers), request(max_length=KV + 1))
    assert refused.code is ErrorCode.BUSY
    assert service._sessions[number].kv is not None


@pytest.mark.usefixtures("everybody_is_idle")
async def test_the_one_that_was_unused_for_longest_is_evicted(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    first, second, third = [await client.open(request(max_length=80)) for _ in range(3)]
    for number in (second, first, third):
        await client.step(number, Step(1, 1, 0, noise(1, 2)))
    await stranger.open(request(max_length=80))
    assert [service._sessions[number].kv is None for number in (first, second, third)] == [False, True, False]


@pytest.mark.usefixtures("everybody_is_idle")
async def test_a_session_with_steps_that_wait_keeps_its_kv(
    service: Service, client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = held_up(service, monkeypatch)
    number = await client.open(request())
    client.send(number, Step(1, 1, 0, noise(1, 2)))
    await client.status()
    assert (await stranger.refusal(next(numbers), request(max_length=KV))).code is ErrorCode.BUSY
    gate.set()
    assert (await client.receive(number)).last == 1
    await stranger.open(request(max_length=KV))


async def test_a_session_that_finds_no_room_when_it_comes_back_ends(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(request())
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    service.admission.evict(service._sessions[number])
    greedy = await stranger.open(request(max_length=KV))
    refused = await client.refusal(number, Step(2, 2, 2, noise(1, 1)))
    assert refused.code is ErrorCode.BUSY
    assert (await client.status()).sessions == 1
    await stranger.step(greedy, Step(1, 1, 0, noise(1, 2)))


# History


@pytest.mark.usefixtures("everybody_is_idle")
async def test_a_full_history_refuses_sessions_and_takes_nobodys_kv(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    opened = []
    for peer in (client, stranger, client):
        opened.append(await peer.open(request(max_length=KV)))
        await peer.step(opened[-1], Step(1, 1, 0, noise(1, 2)))
    assert service.admission.archive.free_bytes == 0
    refused = await stranger.refusal(next(numbers), request(max_length=1))
    assert (refused.code, refused.text) == (ErrorCode.BUSY, "this node's history has 0 MiB left, too little for this")
    assert [service._sessions[number].kv is not None for number in opened] == [False, False, True]


@pytest.mark.usefixtures("everybody_is_idle")
async def test_sessions_that_were_never_used_make_way_in_a_full_history(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    used = await client.open(request(max_length=KV))
    await client.step(used, Step(1, 1, 0, noise(1, 2)))
    idle = [await stranger.open(request(max_length=KV)) for _ in range(2)]
    assert (await client.refusal(next(numbers), request(max_length=3 * KV))).code is ErrorCode.BUSY  # not even so
    await client.open(request(max_length=1))
    assert (await stranger.receive(idle[0])).code is ErrorCode.EXPIRED
    assert service._sessions.keys() >= {used, idle[1]}


async def test_a_session_refused_for_its_kv_leaves_the_history_as_it_was(service: Service, client: HandMade) -> None:
    await client.open(request(max_length=KV - 1))
    before = service.admission.archive.free_bytes
    assert (await client.refusal(next(numbers), request(max_length=2))).code is ErrorCode.BUSY
    assert service.admission.archive.free_bytes == before


async def test_a_session_that_outgrows_the_history_ends_and_no_other_does(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    kept = await stranger.open(request(**LITTLE))
    number = await client.open(request(max_length=KV - BATCH * LENGTH))
    for at in range(1, 1000):
        client.send(number, Step(at, at, 0, noise(1, 100)))  # over and over again: all of it was received, and is kept
        answer = await client.receive(number)
        if not isinstance(answer, Step):
            break
    assert answer.code is ErrorCode.BUSY
    assert 1 < at < HISTORY // (100 * SESSION_BYTES) + 2
    assert (await client.status()).sessions == 1
    await stranger.step(kept, Step(1, 1, 0, noise(BATCH, 2)))


async def test_a_history_that_cannot_be_read_back_ends_its_session_and_no_other(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    kept = await stranger.open(request())
    lost = [await client.open(request()) for _ in range(2)]
    for number in lost:
        await client.step(number, Step(1, 1, 0, noise(1, 4)))
        await client.step(number, Step(2, 2, 4, noise(1, 1)))
        service._sessions[number].record.path.unlink()
    service.admission.evict(service._sessions[lost[0]])
    refused = await client.refusal(lost[0], Step(3, 3, 5, noise(1, 1)))
    assert (refused.code, refused.text) == (ErrorCode.FAILED, "the computation failed: RecordError")
    fresh = request(generation=2).neighbours  # a new successor, which needs it all again
    client.send(lost[1], fresh)
    answers = [await client.receive(lost[1]) for _ in range(2)]
    assert answers[0] == Routed(2)
    assert answers[1].code is ErrorCode.FAILED
    assert "history" in answers[1].text
    async with asyncio.timeout(HANGS_S):
        while (await client.status()).sessions > 1:
            await asyncio.sleep(0)
    await stranger.step(kept, Step(1, 1, 0, noise(1, 2)))
