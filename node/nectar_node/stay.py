"""A node's stay at one span: from the first session until its operator stops it, p2pd ends, or it moves."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from nectar_protocol.address import Address
from nectar_protocol.announcement import NodeState
from nectar_protocol.identity import PeerID
from nectar_swarm.errors import SwarmError
from nectar_swarm.waiting import first_of

from nectar_node.announcer import Announcer
from nectar_node.mover import Mover, Span
from nectar_node.service import Service

log = logging.getLogger(__name__)


class Stay:
    """`service` runs already. Without a `mover` the node stays until it is stopped."""

    def __init__(self, service: Service, announcer: Announcer, span: Span, mover: Mover | None, drain_s: float) -> None:
        self.service, self.announcer, self.span, self.mover, self.drain_s = service, announcer, span, mover, drain_s

    async def begin(self) -> None:
        await self.announcer.say(*self.span, NodeState.SERVING if self.mover else NodeState.PINNED)

    async def end(self, stop: asyncio.Event, ended: asyncio.Event) -> Span | None:
        """Serve until `stop` or `ended` is set, or until nobody needs us here: then, where to go."""
        while (target := await self._wait(stop, ended)) is not None:
            log.info("moving to blocks %d:%d", *target)
            await self.announcer.say(*target, NodeState.JOINING)
            await first_of(self.service.drain(self.drain_s), stop.wait(), ended.wait())
            if stop.is_set() or ended.is_set():
                break
            if await self._is_relieved():
                return target
            log.warning("whoever served our blocks too is gone; staying")
            self.service.leaving = False
            await self.announcer.say(*self.span, NodeState.SERVING)
        if not ended.is_set():
            await self.announcer.say(*self.span, NodeState.LEAVING)
            await self.service.drain(self.drain_s)
        return None

    async def _wait(self, stop: asyncio.Event, ended: asyncio.Event) -> Span | None:
        if self.mover is None:
            await first_of(stop.wait(), ended.wait())
            return None
        moving = asyncio.ensure_future(self.mover.next_span(self.span, self._answers))
        try:
            await first_of(moving, stop.wait(), ended.wait())
            return moving.result() if moving.done() and not (stop.is_set() or ended.is_set()) else None
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)

    async def _is_relieved(self) -> bool:
        return self.mover is not None and await self.mover.is_relieved(self.span, self._answers)

    async def _answers(self, peer: PeerID, addresses: Sequence[Address]) -> bool:
        """Could this peer take over? Its link tells within three seconds of silence."""
        with contextlib.suppress(SwarmError):
            return not (await self.service.peers.connect(peer, addresses)).suspected
        return False
