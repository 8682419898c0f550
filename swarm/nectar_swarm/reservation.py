"""The hidden peer's end of circuits: keeps places at relays, and leads those who call into its own p2pd."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from nectar_protocol.address import Address
from nectar_protocol.identity import PeerID, parse_peer_id

from nectar_swarm.circuit import CALLED, Request, Stream, ask, hold, splice
from nectar_swarm.errors import SwarmError
from nectar_swarm.host import Host
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.waiting import first_of

RELAYS = 2  # at a time: one may fail, and three addresses of relays are all that an announcement has room for
RETRY_S, CONTENT_RETRY_S = 1.0, 30.0

log = logging.getLogger(__name__)


class Reservations:
    """At up to two of the peers that `candidates` names, the first ones preferred; lost ones are replaced.

    `changed` is set whenever `addresses` are others than before.
    """

    def __init__(self, host: Host, candidates: Callable[[], Sequence[PeerAddress]]) -> None:
        self.changed = asyncio.Event()
        self._host, self._candidates = host, candidates
        self._held: dict[PeerID, Address] = {}
        self._lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others reach us."""
        return tuple(self._held.values())

    async def start(self) -> None:
        await self._host.serve(CALLED, self._called)
        self._spawn(self._keep())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            self._lost.clear()
            for relay in self._candidates():
                if len(self._held) < RELAYS and relay.peer not in self._held and relay.peer != self._host.peer_id:
                    try:
                        await self._reserve(relay)
                    except SwarmError as error:
                        log.info("no reservation: %s", error)
            await first_of(self._lost.wait(), timeout_s=CONTENT_RETRY_S if self._held else RETRY_S)

    async def _reserve(self, relay: PeerAddress) -> None:
        """Raises SwarmError."""
        await self._host.connect(relay.peer, relay.addresses)
        seen = await self._host.connection(relay.peer)
        works = seen if seen in relay.addresses else relay.addresses[0]
        stream = await ask(self._host, relay.peer, Request.RESERVE)
        self._held[relay.peer] = replace(works, relay=parse_peer_id(relay.peer))
        self.changed.set()
        self._spawn(self._hold(relay.peer, stream))

    async def _hold(self, relay: PeerID, stream: Stream) -> None:
        await hold(stream)
        log.warning("lost the relay %s", relay)
        del self._held[relay]
        self.changed.set()
        self._lost.set()

    async def _called(self, relay: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = await self._host.addresses()
        if relay not in self._held or not own:
            writer.close()
            return
        try:
            p2pd = await asyncio.open_connection(str(own[0].ip), own[0].port)
        except OSError as error:
            log.warning("cannot lead a caller to our own p2pd: %s", error)
            writer.close()
            return
        await splice((reader, writer), p2pd)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
