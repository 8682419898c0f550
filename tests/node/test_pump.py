"""What a session owes its successor leaves in turns with everybody else's, however often it is asked for again."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nectar_node import session as session_module
from nectar_node.archive import Archive
from nectar_node.errors import StepError
from nectar_node.session import STEPS_PER_TURN, Session
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Neighbours, Open, Step

OWNER = Identity.from_seed(bytes(32)).peer_id
WIDTH = 4


class Successor:
    """A link that takes everything, unless it is crowded."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.crowded = False
        self.waiting: list[Callable[[], None]] = []

    def send(self, session: int, kind: Kind, payload: bytes) -> None:
        self.sent.append(Step.unpack(payload).last)

    def when_clear(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)


Make = Callable[..., Session]


def failed(session: Session, error: StepError) -> None:
    raise error


@pytest.fixture
def session_of() -> Iterator[Make]:
    """A session that has computed so many steps of one token."""
    archive = Archive(1 << 20)

    def make(steps: int, successor: Any = None) -> Session:
        request = Open(ModelID(bytes(32)), 0, 1, steps + 1, torch.float32, (0,), Neighbours(1, None, None))
        record = archive.open(1 << 16)
        assert record is not None
        session = Session(1, OWNER, request, None, record, 0.0, failed)
        session.successor = successor
        for number in range(1, steps + 1):
            session.history.append(Step(number, number, number - 1, torch.zeros(1, 1, WIDTH)))
        return session

    yield make
    archive.close()


async def turn() -> None:
    await asyncio.sleep(0)


async def test_a_long_replay_leaves_in_many_turns_and_in_order(session_of: Make) -> None:
    session = session_of(3 * STEPS_PER_TURN, successor := Successor())
    session.pump()
    session.pump()  # an output came meanwhile
    assert len(successor.sent) == 2 * STEPS_PER_TURN
    await turn()
    await turn()
    assert successor.sent == list(range(1, 3 * STEPS_PER_TURN + 1))


async def test_large_steps_leave_one_by_one(session_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "BYTES_PER_TURN", 1)
    session = session_of(3, successor := Successor())
    for count in (1, 2, 3):
        if count == 1:
            session.pump()
        else:
            await turn()
        assert successor.sent == list(range(1, count + 1))


async def test_a_replay_that_is_asked_for_again_in_every_turn_costs_each_turn_the_same(session_of: Make) -> None:
    session = session_of(3 * STEPS_PER_TURN, successor := Successor())
    for _ in range(10):
        before = len(successor.sent)
        session.sent = 0
        session.pump()
        await turn()
        assert len(successor.sent) - before <= 2 * STEPS_PER_TURN


async def test_a_crowded_successor_is_waited_for(session_of: Make) -> None:
    session = session_of(2, successor := Successor())
    successor.crowded = True
    session.pump()
    assert not successor.sent
    successor.crowded = False
    successor.waiting.pop()()
    assert successor.sent == [1, 2]


async def test_a_session_that_ends_sends_no_more(session_of: Make) -> None:
    session = session_of(2 * STEPS_PER_TURN, successor := Successor())
    session.pump()
    session.closed = True
    await turn()
    assert len(successor.sent) == STEPS_PER_TURN


async def test_only_so_many_steps_wait(session_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_WAITING", 2)
    session = session_of(2)
    session.waiting = 2
    with pytest.raises(StepError, match="waiting already"):
        session.accept(Step(1, 1, 0, torch.zeros(1, 1, WIDTH)), WIDTH)
    session.waiting = 1
    assert session.accept(Step(1, 1, 0, torch.zeros(1, 1, WIDTH)), WIDTH)
