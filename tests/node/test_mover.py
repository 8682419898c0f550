"""When nodes move: one after the other, never from a block that nobody else keeps, under a clock that jumps."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from nectar_node.announcer import Announcer, Pace
from nectar_node.mover import Mover, Span
from nectar_node.speed import Speed
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import SwarmError

from benchmarks.virtual import VirtualLoop

BLOCKS = 8
MODEL = ModelID(b"m" * 32)
PACE = Pace()
LONG_S = 3 * (2 * PACE.recheck_s + PACE.intention_s)
Result = TypeVar("Result")


class Board:
    """A directory that everybody reads at once what is said, or after `delay_s`."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s, self.broken = delay_s, False
        self.said: list[Announcement] = []
        self.words: dict[bytes, Announcement] = {}

    async def announce(self, announcement: Announcement) -> bool:
        self.said.append(announcement)
        await asyncio.sleep(self.delay_s)
        self.words[announcement.node] = announcement
        return True

    async def nodes(self, model: ModelID) -> list[Announcement]:
        if self.broken:
            raise SwarmError("the swarm's directory cannot be read")
        return list(self.words.values())

    def states(self, node: "Peer") -> list[NodeState]:
        return [word.state for word in self.said if word.node == node.identity.public]


class Peer:
    """A node as far as moving goes."""

    def __init__(self, board: Board, number: int, decode_s: float = 0.01) -> None:
        self.identity = Identity.from_seed(bytes([number]) * 32)
        loop = asyncio.get_running_loop()
        self.announcer = Announcer(self.identity, MODEL, Profile.F32, PACE, lambda: int(loop.time() * 1000) + 1)
        self.announcer.speed = Speed(decode_s=decode_s)
        self.announcer.attach(board, self._addresses)  # type: ignore[arg-type]
        self.mover = Mover(board, self.announcer, BLOCKS, random.Random(number))  # type: ignore[arg-type]

    async def _addresses(self) -> tuple[()]:
        return ()

    async def serve(self, start: int, stop: int, state: NodeState = NodeState.SERVING) -> "Peer":
        await self.announcer.say(start, stop, state)
        return self

    async def next_span(self, span: Span, answers: Callable[..., Awaitable[bool]] | None = None) -> Span | None:
        """None if it does not go for a long time."""
        try:
            async with asyncio.timeout(LONG_S):
                return await self.mover.next_span(span, answers or everybody)
        except TimeoutError:
            return None


async def everybody(peer: str, addresses: Sequence[Any]) -> bool:
    return True


async def nobody(peer: str, addresses: Sequence[Any]) -> bool:
    return False


@pytest.fixture
def run() -> Callable[[Awaitable[Result]], Result]:
    def run(work: Awaitable[Result]) -> Result:
        loop = VirtualLoop()
        try:
            return loop.run_until_complete(work)
        finally:
            loop.close()

    return run


Run = Callable[[Any], Any]


def test_a_node_that_is_not_needed_says_so_waits_and_goes_where_nobody_is(run: Run) -> None:
    async def story() -> None:
        board = Board()
        one, two = await Peer(board, 1).serve(0, 4), await Peer(board, 2).serve(0, 4, NodeState.PINNED)
        started_s = asyncio.get_running_loop().time()
        assert await one.next_span((0, 4)) == (4, 8)
        assert board.states(one) == [NodeState.SERVING, NodeState.MOVING]
        assert asyncio.get_running_loop().time() - started_s >= PACE.recheck_s + PACE.intention_s
        assert board.states(two) == [NodeState.PINNED]

    run(story())


@pytest.mark.parametrize("delay_s", [0.0, 5.0, 15.0])
def test_of_two_that_could_go_only_one_does(run: Run, delay_s: float) -> None:
    async def story() -> None:
        board = Board(delay_s)
        peers = [await Peer(board, number).serve(0, 4) for number in (1, 2)]
        going = [asyncio.ensure_future(peer.next_span((0, 4))) for peer in peers]
        done, waiting = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        [gone], [still] = done, waiting
        assert gone.result() == (4, 8)
        await peers[going.index(gone)].serve(4, 8, NodeState.JOINING)
        assert await still is None
        assert board.states(peers[going.index(still)])[-1] is NodeState.SERVING

    run(story())


def test_two_that_rely_on_each_other_and_ask_at_the_same_moment_both_stay(run: Run) -> None:
    async def story() -> None:
        board = Board(delay_s=5.0)
        peers = [await Peer(board, number).serve(0, 4) for number in (1, 2)]
        asked = await asyncio.gather(*(peer.mover._ask((0, 4), everybody) for peer in peers))
        assert asked == [None, None]
        assert [board.states(peer)[-1] for peer in peers] == [NodeState.SERVING] * 2

    run(story())


def test_of_two_that_ask_at_the_same_moment_and_could_both_go_one_does(run: Run) -> None:
    async def story() -> None:
        board = Board(delay_s=5.0)
        await Peer(board, 9).serve(0, 4, NodeState.PINNED)
        peers = [await Peer(board, number).serve(0, 2) for number in (1, 2)]
        asked = await asyncio.gather(*(peer.mover._ask((0, 2), everybody) for peer in peers))
        assert sum(start is not None for start in asked) == 1

    run(story())


@pytest.mark.parametrize("state", [NodeState.JOINING, NodeState.MOVING, NodeState.LEAVING])
def test_a_node_stays_when_the_only_other_one_cannot_be_relied_on(run: Run, state: NodeState) -> None:
    async def story() -> None:
        board = Board()
        one, _ = await Peer(board, 1).serve(0, 4), await Peer(board, 2).serve(0, 4, state)
        assert await one.next_span((0, 4)) is None
        assert NodeState.MOVING not in board.states(one)

    run(story())


def test_a_node_stays_when_those_that_the_directory_names_do_not_answer(run: Run) -> None:
    async def story() -> None:
        board = Board()
        one, _ = await Peer(board, 1).serve(0, 4), await Peer(board, 2).serve(0, 4)
        assert await one.next_span((0, 4), nobody) is None
        assert board.states(one)[-1] is NodeState.SERVING
        assert not await one.mover.is_relieved((0, 4), nobody)
        assert await one.mover.is_relieved((0, 4), everybody)

    run(story())


def test_a_node_stays_and_takes_its_word_back_when_the_directory_cannot_be_read(run: Run) -> None:
    async def story() -> None:
        board = Board()
        one, _ = await Peer(board, 1).serve(0, 4), await Peer(board, 2).serve(0, 4)
        asking = asyncio.ensure_future(one.mover._ask((0, 4), everybody))
        await asyncio.sleep(1)
        board.broken = True
        assert await asking is None
        assert board.states(one) == [NodeState.SERVING, NodeState.MOVING, NodeState.SERVING]
        assert await one.next_span((0, 4)) is None
        assert not await one.mover.is_relieved((0, 4), everybody)

    run(story())


def test_a_balanced_swarm_is_left_alone(run: Run) -> None:
    async def story() -> None:
        board = Board()
        peers = [await Peer(board, number).serve(*span) for number, span in enumerate([(0, 4), (0, 4), (4, 8), (4, 8)])]
        spans = await asyncio.gather(*(peer.next_span((0, 4)) for peer in peers[:2]))
        assert spans == [None, None]
        assert all(NodeState.MOVING not in board.states(peer) for peer in peers)

    run(story())


@pytest.mark.parametrize("delay_s", [0.0, 0.5])
def test_nodes_that_join_at_the_same_moment_share_the_blocks(run: Run, delay_s: float) -> None:
    async def story() -> None:
        board = Board(delay_s)
        spans = await asyncio.gather(*(Peer(board, number).mover.join(2) for number in (1, 2, 3, 4)))
        assert sorted(spans) == [(0, 2), (2, 4), (4, 6), (6, 8)]

    run(story())


def test_a_node_that_joins_takes_what_the_others_lack_and_does_not_count_itself(run: Run) -> None:
    async def story() -> None:
        board = Board()
        one = await Peer(board, 1).serve(4, 8)  # before a restart
        await Peer(board, 2).serve(0, 4)
        assert await one.mover.join(4) == (4, 8)
        assert await Peer(board, 3).mover.join(99) == (0, BLOCKS)

    run(story())
