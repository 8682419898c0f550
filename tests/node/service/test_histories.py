"""What a node tells of a session to whoever shows its signature: everything that it received, while it is kept."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from nectar_node.archive import Archive
from nectar_node.service import Service
from nectar_node.till import chronicle
from nectar_node.till.till import Till
from nectar_protocol.identity import Identity
from nectar_protocol.opening import MAX_REQUEST_LIFE_MS, HistoryRequest
from nectar_swarm.frames import Kind
from nectar_swarm.messages import ErrorCode, Step
from nectar_swarm.past import HistoryCall, Past

from tests.ledger.api.served import Clock
from tests.ledger.world import person
from tests.node.service.payers import NODE, Payer, new_till
from tests.node.service.peers import HANGS_S, HandMade, numbers
from tests.node.sessions import WIDTH, noise

pytestmark = pytest.mark.asyncio(loop_scope="module")
RETENTION_S = 0.2
LIFE_MS = 3_600_000
SESSION_BYTES = 2 * 16 * WIDTH * 4


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    """That keeps what is over for a moment, and most of it on disk; a quarter of it may be pinned."""
    archive = Archive(40 * SESSION_BYTES, memory_bytes=4 * WIDTH, retention_s=RETENTION_S)
    yield archive
    archive.close()


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Till]:
    till = new_till(tmp_path_factory.mktemp("node"), clock)
    yield till
    till.spool.close()


STEPS = [
    Step(1, 1, 0, noise(1, 6)),
    Step(2, 2, 6, noise(1, 3, seed=1)),
    Step(3, 3, 6, noise(1, 1, seed=2)),  # takes the second back
    Step(4, 6, 0, noise(1, 4, seed=3)),  # a replay from the beginning
]


async def played(client: HandMade, name: str) -> Payer:
    payer = Payer(client, name)
    await payer.open()
    for step in STEPS:
        await payer.step(step)
    return payer


def call(payer: Payer, clock: Clock, signer: Identity | None = None, **changes: object) -> bytes:
    request = HistoryRequest(NODE.public, payer.hold.id, payer.key.public, clock.now_ms + LIFE_MS)
    request = replace(request, **changes)
    return HistoryCall(request, request.sign(signer or payer.key)).pack()


async def history(client: HandMade, asked: bytes) -> list[Step]:
    number = next(numbers)
    client.send(number, asked, Kind.HISTORY)
    steps: list[Step] = []
    while True:
        part = await client.receive(number)
        assert isinstance(part, Past), part
        if part.step is None:
            assert (part.count, part.number) == (0, 0)
            return steps
        steps.append(part.step)
        assert part.number == len(steps)
        if part.number == part.count:
            return steps


def same(told: list[Step], sent: list[Step]) -> None:
    assert told == sent
    assert all(one.hidden.equal(other.hidden) for one, other in zip(told, sent, strict=True))


async def forgotten(payer: Payer, archive: Archive, till: Till) -> None:
    async with asyncio.timeout(HANGS_S):
        while (payer.hold.id, payer.key.public) in till.chronicles._volumes:
            await asyncio.sleep(0.01)


async def test_all_that_came_is_told_in_order_with_what_was_rolled_back(client: HandMade, clock: Clock) -> None:
    payer = await played(client, "told while it lives")
    same(await history(client, call(payer, clock)), STEPS)


async def test_anybody_may_ask_who_has_the_sessions_signature(
    client: HandMade, stranger: HandMade, clock: Clock
) -> None:
    payer = await played(client, "told to others")
    same(await history(stranger, call(payer, clock)), STEPS)


async def test_a_session_that_received_nothing_has_an_empty_history(client: HandMade, clock: Clock) -> None:
    payer = Payer(client, "empty")
    await payer.open()
    assert await history(client, call(payer, clock)) == []


async def test_a_line_that_was_opened_again_has_one_history(client: HandMade, clock: Clock) -> None:
    await played(client, "opened twice")
    payer = await played(client, "opened twice")
    same(await history(client, call(payer, clock)), [*STEPS, *STEPS])


async def test_a_request_pins_it_beyond_its_time(
    client: HandMade, clock: Clock, till: Till, archive: Archive, service: Service
) -> None:
    pinned, other = await played(client, "pinned"), await played(client, "not pinned")
    await history(client, call(pinned, clock))
    before = archive.free_bytes
    await pinned.close()
    await other.close()
    await forgotten(other, archive, till)
    same(await history(client, call(pinned, clock)), STEPS)
    assert archive.free_bytes > before
    refused = await client.refusal(next(numbers), call(other, clock), Kind.HISTORY)
    assert (refused.code, "no history" in refused.text) == (ErrorCode.DENIED, True)


async def test_what_was_pinned_is_dropped_when_that_is_over(
    client: HandMade, clock: Clock, till: Till, archive: Archive
) -> None:
    payer = await played(client, "pinned for a moment")
    await history(client, call(payer, clock, expires_ms=clock.now_ms + int(3000 * RETENTION_S)))
    await payer.close()
    await forgotten(payer, archive, till)


async def test_a_request_is_refused_that_the_session_did_not_sign_or_that_asks_for_too_much(
    client: HandMade, clock: Clock
) -> None:
    payer = await played(client, "refused")
    requests = {
        "has not signed": call(payer, clock, person("mallory")),
        "no history of such": call(payer, clock, node=person("another").public),
        "no history": call(payer, clock, hold=bytes(32)),
        "within 24 hours": call(payer, clock, expires_ms=clock.now_ms + MAX_REQUEST_LIFE_MS + 1),
        "hours from now": call(payer, clock, expires_ms=clock.now_ms),
    }
    for reason, asked in requests.items():
        refused = await client.refusal(next(numbers), asked, Kind.HISTORY)
        assert refused.code is ErrorCode.DENIED
        assert reason in refused.text
    cut = await client.refusal(next(numbers), call(payer, clock)[:-1], Kind.HISTORY)
    assert cut.code is ErrorCode.MALFORMED


async def test_no_more_is_pinned_than_a_quarter_of_all_room(client: HandMade, clock: Clock, archive: Archive) -> None:
    payers = [await played(client, f"many {number}") for number in range(12)]
    refusals = 0
    for payer in payers:
        number = next(numbers)
        client.send(number, call(payer, clock), Kind.HISTORY)
        answer = await client.receive(number)
        refusals += not isinstance(answer, Past)
        await client.status()
    assert refusals > 0
    assert sum(record.reserved_bytes for record in archive._pinned) <= archive.total_bytes // 4


async def test_one_peer_is_told_two_histories_at_a_time(
    client: HandMade, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronicle, "MAX_TOLD_AT_ONCE", 0)
    payer = await played(client, "two at a time")
    refused = await client.refusal(next(numbers), call(payer, clock), Kind.HISTORY)
    assert "on their way" in refused.text


async def test_a_history_that_cannot_be_read_back_is_said_to_be_lost(
    client: HandMade, clock: Clock, service: Service
) -> None:
    payer = await played(client, "lost")
    service._sessions[payer.number].record.path.unlink()
    number = next(numbers)
    client.send(number, call(payer, clock), Kind.HISTORY)
    while isinstance(answer := await client.receive(number), Past):
        pass
    assert answer.code is ErrorCode.FAILED
    await client.close(payer.number)
