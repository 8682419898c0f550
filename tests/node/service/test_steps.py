"""What a node answers to a session's steps: the span's own outputs, in order, once."""

from typing import Any

import pytest
import torch
from nectar_node.service import Service
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.messages import Step

from tests.node.service.peers import KV, HandMade, alone, close, equal, request, span_of
from tests.node.sessions import START, STOP, noise, recomputed, turns_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(("start", "stop"), [(START, STOP), (2, 4)])
async def test_steps_give_the_spans_own_output_and_closing_gives_all_back(
    service: Service, client: HandMade, start: int, stop: int
) -> None:
    pieces = noise(1, 8).split([6, 1, 1], 1)
    number = await client.open(request(start=start, stop=stop))
    assert (await client.status()).kv_free == KV - 16
    position = 0
    for at, (piece, want) in enumerate(zip(pieces, alone(span_of(service), pieces, start, stop), strict=True), 1):
        answer = await client.step(number, Step(at, at, position, piece))
        assert (answer.first, answer.last, answer.position) == (at, at, position)
        equal(answer, want)
        position += piece.shape[1]
    client.send(number, b"", Kind.CLOSE)
    status = await client.status()
    assert (status.kv_free, status.sessions) == (KV, 0)


async def test_steps_sent_ahead_are_answered_in_order(client: HandMade, service: Service) -> None:
    pieces = noise(1, 10).split(1, 1)
    number = await client.open(request())
    for at, piece in enumerate(pieces):
        client.send(number, Step(at + 1, at + 1, at, piece))
    for at, want in enumerate(alone(span_of(service), pieces), 1):
        answer = await client.receive(number)
        assert answer.last == at
        equal(answer, want)


async def test_an_earlier_position_rolls_the_kv_back(client: HandMade, service: Service) -> None:
    hidden, other = noise(1, 6), noise(1, 2, seed=1)
    number = await client.open(request())
    await client.step(number, Step(1, 1, 0, hidden[:, :4]))
    await client.step(number, Step(2, 2, 4, other))
    answer = await client.step(number, Step(3, 3, 4, hidden[:, 4:5]))
    close(answer, alone(span_of(service), hidden.split([4, 1, 1], 1))[1])
    answer = await client.step(number, Step(4, 4, 0, hidden[:, :4]))
    close(answer, alone(span_of(service), [hidden[:, :4]])[0])


async def test_a_reorder_gives_rows_the_past_of_others(client: HandMade, service: Service) -> None:
    past, new = noise(2, 5), noise(2, 1, seed=1)
    number = await client.open(request(pads=(0, 0)))
    await client.step(number, Step(1, 1, 0, past))
    answer = await client.step(number, Step(2, 2, 5, new, reorder=(1, 1)))
    want = alone(span_of(service), [past[[1, 1]], new])[1]
    close(answer, want)


async def test_padded_rows_give_what_they_give_alone(client: HandMade, service: Service) -> None:
    hidden = noise(2, 7)
    number = await client.open(request(pads=(3, 0)))
    turns = turns_of(hidden, 6, 1)
    for at, (turn, want) in enumerate(zip(turns, recomputed(span_of(service), turns, (3, 0)), strict=True), 1):
        close(await client.step(number, Step(at, at, turn.position, turn.hidden)), want)


async def test_a_step_that_comes_again_is_not_computed_again(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    forward = span_of(service).forward

    def counted(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(hidden.shape[1])
        return forward(hidden, *args, **kwargs)

    monkeypatch.setattr(span_of(service), "forward", counted)
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
    close(again, answer.hidden)
