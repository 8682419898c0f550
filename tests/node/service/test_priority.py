"""KV and places for sessions that pay: of those that do not, and never the other way round."""

from typing import Any, NamedTuple

import pytest
from nectar_node import admission
from nectar_node.engine import Engine
from nectar_node.fairqueue import FairQueue
from nectar_node.service import Service
from nectar_swarm.messages import ErrorCode, Open, Step

from tests.node.service.peers import KV, HandMade, close, held_up, numbers, request, span_of
from tests.node.sessions import noise, recomputed, turns_of


class Weighed(NamedTuple):
    """What stands for a hold: the weight that it has."""

    weight: int


pytestmark = pytest.mark.asyncio(loop_scope="module")
HALF = KV // 2


@pytest.fixture(autouse=True)
def _holds_are_weights(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(link: object, number: int, asked: Open) -> Weighed | None:
        return Weighed(int(asked.hold)) if asked.hold else None

    monkeypatch.setattr(service._desk, "check", check)
    monkeypatch.setattr(service._desk, "enter", lambda session, paid: None)


@pytest.fixture
def everybody_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "EVICTABLE_S", -1.0)


def paid(weight: int, length: int = KV) -> Any:
    return request(max_length=length, hold=str(weight).encode())


def holders(service: Service) -> set[int]:
    return {session.number for session in service._sessions.values() if session.kv is not None}


async def test_a_free_session_makes_way_for_one_that_pays_and_goes_on_afterwards_as_if_nothing_had_been(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    turns = turns_of(noise(1, 12), 7, 1, 3, 1)
    want = recomputed(span_of(service), turns, (0,))
    number = await client.open(request())
    for at in (0, 1):
        close(await client.step(number, Step(at + 1, at + 1, turns[at].position, turns[at].hidden)), want[at])
    greedy = await stranger.open(paid(1))
    assert holders(service) == {greedy}
    await stranger.step(greedy, Step(1, 1, 0, noise(1, 20, seed=7)))
    await stranger.close(greedy)
    for at in (2, 3):
        close(await client.step(number, Step(at + 1, at + 1, turns[at].position, turns[at].hidden)), want[at])


@pytest.mark.usefixtures("everybody_is_idle")
async def test_a_session_that_pays_makes_way_for_none_that_does_not(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(paid(1))
    assert (await client.status()).kv_free == 0, "for those who ask: they do not pay"
    refused = await stranger.refusal(next(numbers), request(max_length=1))
    assert (refused.code, refused.text) == (ErrorCode.BUSY, f"1 positions of KV are wanted, 0 of {KV} are free")
    assert refused.retry_after_ms >= 1000
    assert holders(service) == {number}
    await client.step(number, Step(1, 1, 0, noise(1, 2)))


async def test_a_free_session_that_comes_back_to_a_full_node_is_told_when_to_try_again(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(request())
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    greedy = await stranger.open(paid(2))
    refused = await client.refusal(number, Step(2, 2, 2, noise(1, 1)))
    assert refused.code is ErrorCode.BUSY
    assert refused.retry_after_ms == 30_000, "whoever pays may stay for as long as it likes"
    assert holders(service) == {greedy}
    await stranger.step(greedy, Step(1, 1, 0, noise(1, 2)))


@pytest.mark.parametrize("weight", [1, 2, 8])
async def test_a_session_that_pays_makes_way_for_another_only_when_it_is_idle(
    service: Service, client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch, weight: int
) -> None:
    number = await client.open(paid(2))
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    refused = await stranger.refusal(next(numbers), paid(weight))
    assert refused.code is ErrorCode.BUSY
    assert 8_000 < refused.retry_after_ms <= 10_000, "when it will have been idle for long enough"
    monkeypatch.setattr(admission, "EVICTABLE_S", -1.0)
    other = await stranger.open(paid(weight))
    assert holders(service) == {other}
    await client.step(number, Step(2, 2, 2, noise(1, 1)))
    assert holders(service) == {number}


@pytest.mark.usefixtures("everybody_is_idle")
async def test_free_sessions_make_way_first_the_one_unused_for_longest_before_the_others(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    size = KV // 4
    kept = await client.open(paid(1, size))
    first, second, third = [await client.open(request(max_length=size)) for _ in range(3)]
    for number in (kept, second, first, third):
        await client.step(number, Step(1, 1, 0, noise(1, 2)))
    gone = []
    for _ in range(4):
        before = holders(service)
        await stranger.open(paid(4, size))
        gone += before - holders(service)
    assert gone == [second, first, third, kept]


async def test_a_free_session_keeps_its_kv_while_a_step_of_it_waits(
    service: Service, client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = held_up(service, monkeypatch)
    number = await client.open(request())
    client.send(number, Step(1, 1, 0, noise(1, 2)))
    await client.status()
    assert (await stranger.refusal(next(numbers), paid(8))).code is ErrorCode.BUSY
    gate.set()
    assert (await client.receive(number)).last == 1
    await stranger.open(paid(8))


async def test_what_would_never_fit_is_told_to_stay_away_and_takes_nothing(
    service: Service, client: HandMade, stranger: HandMade
) -> None:
    number = await client.open(request())
    refused = await stranger.refusal(next(numbers), paid(8, KV + 1))
    assert (refused.code, refused.retry_after_ms) == (ErrorCode.BUSY, 30_000)
    assert holders(service) == {number}


async def test_the_free_door_closes_when_too_much_waits_and_says_for_how_long(
    service: Service, client: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wait_s, retry_after_ms in ((45.0, 15_000), (30.2, 1_000), (500.0, 30_000)):
        monkeypatch.setattr(Engine, "free_wait_s", wait_s)
        refused = await client.refusal(next(numbers), request(generation=2))
        assert (refused.code, refused.generation) == (ErrorCode.BUSY, 2)
        assert refused.retry_after_ms == retry_after_ms
        await client.close(await client.open(paid(1)))
    monkeypatch.setattr(Engine, "free_wait_s", 30.0)
    await client.open(request())


@pytest.mark.usefixtures("everybody_is_idle")
async def test_on_a_node_full_of_sessions_one_that_pays_gets_the_place_of_one_that_does_not(
    service: Service, client: HandMade, stranger: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_SESSIONS", 2)
    kept, free = await client.open(paid(1, HALF)), await stranger.open(request())
    other = await client.open(paid(1, 16))
    assert (await stranger.receive(free)).code is ErrorCode.EXPIRED
    assert (await stranger.refusal(next(numbers), request())).code is ErrorCode.BUSY
    assert service._sessions.keys() == {kept, other}


async def test_a_sessions_weight_is_that_of_its_steps_and_nothing_of_it_stays(
    service: Service, client: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = service._engine._scheduler  # type: ignore[union-attr]  # one stage
    assert isinstance(scheduler, FairQueue)
    weights, add = list[int](), scheduler.add
    monkeypatch.setattr(scheduler, "add", lambda work: (weights.append(work.weight), add(work)))
    number = await client.open(paid(4))
    await client.step(number, Step(1, 1, 0, noise(1, 2)))
    assert weights == [4]
    service.admission.evict(service._sessions[number])
    await client.step(number, Step(2, 2, 2, noise(1, 1)))
    assert set(weights) == {4}
    assert scheduler._flows
    await client.close(number)
    assert not scheduler._flows
