"""Who serves what: announcements in hivemind's DHT, on our own p2pd and in our own loop."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.utils.serializer import MSGPackSerializer
from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import PeerID, peer_id
from nectar_protocol.manifest import ModelID

from nectar_swarm.errors import SwarmError, UnreachableError
from nectar_swarm.host import Host
from nectar_swarm.kademlia import Kademlia, place_of
from nectar_swarm.lookup import Lookup, Question
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.records import INDEX_KEY, AnnouncementValidator, model_key

REFRESH_S = 30.0
LIFE_MS = 75_000
MAX_VERIFIED = 1024  # records of one reading
VERIFIED_PER_TURN = 32
MAX_ALWAYS = 8  # initial peers that are asked in every reading
CLOSE_S = 1.0


class Directory:
    """Made by `join`. A `reader` stores no records for others, so that nobody need dial it."""

    def __init__(self, host: Host, dht: Kademlia, lookup: Lookup, validator: AnnouncementValidator) -> None:
        self.host, self._dht, self._lookup, self._validator = host, dht, lookup, validator

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
        validator = AnnouncementValidator(allowed)
        try:
            dht = await Kademlia.begin(host.p2p, validator, reader=reader)
        except Exception as error:  # of p2pd, which has ended
            raise UnreachableError(f"cannot join the swarm's directory: {error}") from error
        lookup = Lookup(dht, [peer.peer for peer in met][:MAX_ALWAYS])
        directory = cls(host, dht, lookup, validator)
        if met and not await directory._ping(met) and not alone:
            await directory.close()
            raise UnreachableError("cannot join the swarm's directory: no initial peer is part of one")
        await lookup.nearest(place_of(host.p2p.peer_id))  # which makes us known to our neighbours
        return directory

    async def announce(self, announcement: Announcement) -> bool:
        """Publish a signed announcement of our own; False if no peer kept it."""
        places: list[tuple[str, str]] = [(model_key(announcement.model), peer_id(announcement.node))]
        if announcement.state is not NodeState.LEAVING:
            places.append((INDEX_KEY, announcement.model.hex()))
        kept = await asyncio.gather(*(self._store(key, subkey, announcement) for key, subkey in places))
        return kept[0]

    async def _store(self, key: str, subkey: str, announcement: Announcement) -> bool:
        place, value = DHTID.generate(source=key), MSGPackSerializer.dumps(announcement.pack())
        expires_s = announcement.expires_ms / 1000
        own = not self._dht.client_mode and self._dht.shelf.store(place, value, expires_s, subkey)
        try:
            peers = await self._lookup.nearest(place)
            answers = await asyncio.gather(
                *(self._dht.call_store(peer, [place], [value], expires_s, [subkey]) for peer in peers)
            )
        except Exception as error:
            raise SwarmError(f"the swarm's directory cannot be written: {error}") from error
        return any(answer and answer[0] for answer in answers) if peers else own

    async def meet(self, peers: Sequence[PeerAddress]) -> bool:
        """Make peers known to our DHT and us to theirs, if any answers: so that swarms that lost each other join."""
        others = [peer for peer in meeting_points(peers) if peer.peer != self.host.peer_id]
        return await self._ping(await connect_any(self.host, others))

    async def _ping(self, peers: Sequence[PeerAddress]) -> bool:
        answers = await asyncio.gather(
            *(self._dht.call_ping(LibP2PPeerID.from_base58(peer.peer), strict=False) for peer in peers),
            return_exceptions=True,
        )
        return any(answer is not None and not isinstance(answer, BaseException) for answer in answers)

    @property
    def peers(self) -> frozenset[PeerID]:
        """Peers that have answered us lately, and so exist."""
        return frozenset(PeerID(peer.to_base58()) for peer in self._dht.routing_table.peer_id_to_uid)

    async def nodes(self, model: ModelID, known: Collection[PeerID] = ()) -> list[Announcement]:
        """The last words of a model's nodes that have not expired, those that leave among them.

        At most MAX_VERIFIED. Of more, those of `known` nodes and of our own peers are read, and some of the others, not
        always the same.
        """
        return await self._read(model_key(model), known)

    async def models(self) -> list[ModelID]:
        """The models that some node announces."""
        return sorted({a.model for a in await self._read(INDEX_KEY)})

    async def _read(self, key: str, known: Collection[object] = ()) -> list[Announcement]:
        place, now_ms = DHTID.generate(source=key), time.time() * 1000
        question = Question(place, self.peers.union(known), MAX_VERIFIED)
        try:
            records = await self._lookup.records(question)
        except Exception as error:
            raise SwarmError(f"the swarm's directory cannot be read: {error}") from error
        found: dict[tuple[object, ...], Announcement] = {}
        for number, (subkey, value, expires_s) in enumerate(records, 1):
            record = DHTRecord(place.to_bytes(), MSGPackSerializer.dumps(subkey), value, expires_s)
            announcement = self._validator.read(record)
            if announcement is not None and announcement.expires_ms > now_ms:
                name = announcement.node, announcement.model
                if name not in found or found[name].issued_ms < announcement.issued_ms:
                    found[name] = announcement
            if number % VERIFIED_PER_TURN == 0:
                await asyncio.sleep(0)
        return list(found.values())

    async def close(self) -> None:
        with contextlib.suppress(Exception):  # with p2pd dead, hivemind waits for ever for its answers
            async with asyncio.timeout(CLOSE_S):
                await self._dht.shutdown()


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
