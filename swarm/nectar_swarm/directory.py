"""Who serves what: announcements in hivemind's DHT, on our own p2pd and in our own loop."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID as LibP2PPeerID
from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PeerID, peer_id
from nectar_protocol.manifest import ModelID

from nectar_swarm.errors import SwarmError, UnreachableError
from nectar_swarm.host import Host, PeerAddress
from nectar_swarm.records import INDEX_KEY, AnnouncementValidator, model_key

REFRESH_S = 30.0
LIFE_MS = 75_000
MAX_RECORDS = 10_000
CLOSE_S = 1.0


class Directory:
    """Made by `join`. A `reader` stores no records for others, so that nobody need dial it."""

    def __init__(self, host: Host, dht: DHTNode) -> None:
        self.host, self._dht = host, dht

    @classmethod
    async def join(
        cls,
        host: Host,
        initial_peers: Sequence[PeerAddress],
        *,
        reader: bool = False,
        alone: bool = False,
        allowed: frozenset[PeerID] | None = None,
    ) -> "Directory":
        """Connect to whichever initial peers answer and join their DHT; without any, begin a new one.

        Raises UnreachableError if there are some and none answers, unless `alone` allows to begin without them.
        """
        others = [peer for peer in meeting_points(initial_peers) if peer.peer != host.peer_id]
        met = await connect_any(host, others)
        if others and not met and not alone:
            raise UnreachableError(f"none of {len(others)} initial peers can be reached; is a node running there?")
        try:
            dht = await DHTNode.create(
                p2p=host.p2p,
                # The same after a restart, or routing tables would list us twice.
                node_id=DHTID.generate(source=host.peer_id),
                initial_peers=[str(peer) for peer in met],
                client_mode=reader,
                record_validator=AnnouncementValidator(allowed),
                cache_locally=False,
                cache_nearest=0,
                cache_on_store=False,
                ensure_bootstrap_success=bool(met) and not alone,
                strict=False,
            )
        except Exception as error:  # hivemind raises RuntimeError and plain exceptions of p2pd
            raise UnreachableError(f"cannot join the swarm's directory: {error}") from error
        return cls(host, dht)

    async def announce(self, announcement: Announcement) -> bool:
        """Publish a signed announcement of our own; False if no peer kept it."""
        data, expires_s = announcement.pack(), announcement.expires_ms / 1000
        places: list[tuple[str, str]] = [(model_key(announcement.model), peer_id(announcement.node))]
        if announcement.state is not NodeState.LEAVING:
            places.append((INDEX_KEY, announcement.model.hex()))
        kept = await asyncio.gather(*(self._dht.store(key, data, expires_s, subkey=subkey) for key, subkey in places))
        return bool(kept[0])

    async def meet(self, peers: Sequence[PeerAddress]) -> bool:
        """Make peers known to our DHT and us to theirs, if any answers: so that swarms that lost each other join."""
        others = [peer for peer in meeting_points(peers) if peer.peer != self.host.peer_id]
        met = await connect_any(self.host, others)
        answers = await asyncio.gather(
            *(self._dht.protocol.call_ping(LibP2PPeerID.from_base58(peer.peer), strict=False) for peer in met),
            return_exceptions=True,
        )
        return any(answer is not None and not isinstance(answer, BaseException) for answer in answers)

    async def nodes(self, model: ModelID) -> list[Announcement]:
        """The last words of a model's nodes that have not expired, those that leave among them."""
        return [a for a in await self._read(model_key(model)) if a.model == model]

    async def models(self) -> list[ModelID]:
        """The models that some node announces."""
        return sorted({a.model for a in await self._read(INDEX_KEY)})

    async def _read(self, key: str) -> list[Announcement]:
        try:
            found = await self._dht.get_many([key], sufficient_expiration_time=float("inf"))
        except Exception as error:
            raise SwarmError(f"the swarm's directory cannot be read: {error}") from error
        record = found.get(key)
        if record is None or not hasattr(record.value, "values"):
            return []
        return list(parse(item.value for item in record.value.values()))

    async def close(self) -> None:
        with contextlib.suppress(Exception):  # with p2pd dead, hivemind waits for ever for its answers
            async with asyncio.timeout(CLOSE_S):
                await self._dht.shutdown()


def parse(values: Iterable[bytes]) -> Iterable[Announcement]:
    """The announcements among at most 10,000 values that are whole and have not expired."""
    now_ms = time.time() * 1000
    for _, value in zip(range(MAX_RECORDS), values, strict=False):
        with contextlib.suppress(ProtocolError):
            announcement = Announcement.unpack(value)
            if announcement.expires_ms > now_ms:
                yield announcement


def meeting_points(peers: Iterable[PeerAddress]) -> list[PeerAddress]:
    """Whom to dial to find the swarm by `peers`: those that can be dialled, and the relays of the others."""
    points = []
    for peer in peers:
        if direct := tuple(address for address in peer.addresses if address.relay is None):
            points.append(PeerAddress(peer.peer, direct))
        else:
            points += [PeerAddress(peer_id(a.relay), (replace(a, relay=None),)) for a in peer.addresses if a.relay]
    return points


async def connect_any(host: Host, peers: Sequence[PeerAddress]) -> list[PeerAddress]:
    """Those of `peers` that answer."""
    results = await asyncio.gather(*(host.connect(peer.peer, peer.addresses) for peer in peers), return_exceptions=True)
    return [peer for peer, result in zip(peers, results, strict=True) if result is None]
