"""When a node takes which blocks: on joining, and later, when the swarm gains by its moving.

Views of the swarm are late, and several nodes may want to move at once. So a node that wants to says MOVING, goes on
serving, and looks again once everybody must have heard it. It goes if nobody who wants to comes before it, the plan
still holds, and each of its blocks is served by another node that answers and does not want to move itself. Whoever
misses the other's word was heard by the other, so never two leave that rely on each other.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import PeerID, peer_id
from nectar_swarm.directory import Directory
from nectar_swarm.errors import SwarmError

from nectar_node.announcer import Announcer
from nectar_node.layout import Layout, Moves
from nectar_node.placement import choose_span
from nectar_node.rebalancing import find_moves, may_begin, relieved

MAX_LOOKS = 8  # at who else joins
MAX_ASKED = 32  # nodes that could take over

Answers = Callable[[PeerID, Sequence[Address]], Awaitable[bool]]
Span = tuple[int, int]

log = logging.getLogger(__name__)


class Mover:
    """For one node and one model of so many blocks; lives as long as its directory.

    `random_` spreads nodes that would otherwise act together; `layout` is the swarm as last seen.
    """

    def __init__(self, directory: Directory, announcer: Announcer, blocks: int, random_: random.Random) -> None:
        self.directory, self.announcer, self.blocks, self.random = directory, announcer, blocks, random_
        self._node, self._pace = announcer.identity.public, announcer.pace
        self.layout: Layout | None = None
        self._plan: Moves = {}

    async def join(self, length: int) -> Span:
        """Choose blocks to begin with, and say that we load them. Raises SwarmError.

        Nodes that join together would choose the same; each looks again, and gives way to those that spoke before it.
        """
        others = await self._others()
        known = {a.node for a in others}
        span = choose_span(others, self.blocks, length)
        await self.announcer.say(*span, NodeState.JOINING)
        for _ in range(MAX_LOOKS if length < self.blocks else 0):
            await asyncio.sleep(self.random.uniform(1, 2) * self._pace.settle_s)
            others = await self._others()
            others = [a for a in others if a.state is not NodeState.JOINING or a.node in known or self._is_after(a)]
            better = choose_span(others, self.blocks, length)
            if better == span:
                break
            span = better
            await self.announcer.say(*span, NodeState.JOINING)
        return span

    async def next_span(self, span: Span, answers: Answers) -> Span:
        """Return when this node has leave to take other blocks than `span`, and which. It serves meanwhile."""
        while True:
            await asyncio.sleep(self.random.uniform(1, 2) * self._pace.recheck_s)
            try:
                if not await self._should_ask(span):
                    continue
            except SwarmError as error:
                log.warning("cannot see whether to move: %s", error)
                continue
            if (start := await self._ask(span, answers)) is not None:
                return start, start + span[1] - span[0]

    async def is_relieved(self, span: Span, answers: Answers) -> bool:
        """Do others serve every block of the span, answer, and mean to stay?"""
        try:
            return await self._relieved(await self._others(), span, answers)
        except SwarmError as error:
            log.warning("cannot see who would take over: %s", error)
            return False

    async def _should_ask(self, span: Span) -> bool:
        others = await self._others()
        if any(a.state is NodeState.MOVING for a in others) or not relieved(others, span):
            return False
        return await self._turn(others) is not None

    async def _ask(self, span: Span, answers: Answers) -> int | None:
        """Say that we want to move; once all have heard it, where to go, or None if we may not."""
        start = None
        if await self.announcer.say(*span, NodeState.MOVING):
            await asyncio.sleep(self._pace.intention_s)
            try:
                others = await self._others()
                if not any(a.state is NodeState.MOVING and self._is_after(a) for a in others) and await self._relieved(
                    others, span, answers
                ):
                    start = await self._turn(others, asked=True)
            except SwarmError as error:
                log.warning("cannot see whether we may move: %s", error)
        if start is None:
            await self.announcer.say(*span, NodeState.SERVING)
        return start

    async def _turn(self, others: list[Announcement], *, asked: bool = False) -> int | None:
        """Where we should go now by the best plan for all; None if we should stay, or let others go before us."""
        own = self.announcer.last
        if own is None:
            return None
        layout = Layout.of([*others, own], self.blocks)
        if self.layout is None or not layout.resembles(self.layout):
            self._plan = await asyncio.to_thread(find_moves, layout, self._plan)
        elif self._plan and not asked:
            # Nobody has begun it: others remember another one. Without memories all find the same.
            self._plan = await asyncio.to_thread(find_moves, layout, {})
        self.layout = layout
        return self._plan[self._node] if may_begin(layout, self._plan, self._node) else None

    async def _relieved(self, others: list[Announcement], span: Span, answers: Answers) -> bool:
        near = [a for a in others if a.start < span[1] and a.stop > span[0] and a.serves]
        near = self.random.sample(near, min(len(near), MAX_ASKED))
        answered = await asyncio.gather(*(answers(peer_id(a.node), a.addresses) for a in near))
        return relieved([a for a, answer in zip(near, answered, strict=True) if answer], span)

    def _is_after(self, other: Announcement) -> bool:
        """Did the other one say before us what it says? Who wins matters less than that all agree."""
        own = self.announcer.last
        return own is None or (other.issued_ms, other.node) < (own.issued_ms, own.node)

    async def _others(self) -> list[Announcement]:
        """Who else serves this model, or will. Raises SwarmError."""
        nodes = await self.directory.nodes(self.announcer.model)
        return [a for a in nodes if a.node != self._node and a.state is not NodeState.LEAVING]
