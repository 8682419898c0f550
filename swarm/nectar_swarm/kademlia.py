"""Our part of hivemind's DHT: what strangers may ask of it, and what that may cost us.

hivemind's own handlers verify as many records as a request holds, keep whatever is valid, whoever brings it, pack a
whole record for every question, let a peer choose its place among the keys, and send every new one all that they keep.
"""

import asyncio
from typing import Any

from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.p2p import P2P, P2PContext
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.proto import dht_pb2
from hivemind.utils.serializer import MSGPackSerializer
from hivemind.utils.timed_storage import get_dht_time
from nectar_protocol.identity import PeerID, peer_id

from nectar_swarm.allowance import Allowance
from nectar_swarm.errors import RefusedError
from nectar_swarm.records import MAX_SUBKEY, AnnouncementValidator
from nectar_swarm.shelf import Shelf

REPLICAS, BUCKET_SIZE, DEPTH_MODULO = 5, 20, 5
CALL_S = 3.0
MAX_STORED, MAX_ASKED = 8, 4  # records, and keys, in one request
RECORDS_PER_UNIT = 64  # of an answer, which is packed once for many who ask
UNITS_PER_S, BURST_UNITS, TOTAL = 100.0, 400.0, 20.0  # for one peer; for all together so many times as much


def place_of(peer: LibP2PPeerID) -> DHTID:
    """A peer's place among the keys, which it does not choose."""
    return DHTID.generate(source=peer.to_base58())


class Kademlia(DHTProtocol):
    """Made by `begin`."""

    def __init__(self, **made_by_create: Any) -> None:
        super().__init__(**made_by_create)
        self.shelf = Shelf()
        self._allowance = Allowance(UNITS_PER_S, BURST_UNITS, TOTAL, asyncio.get_running_loop().time)

    @classmethod
    async def begin(cls, p2p: P2P, validator: AnnouncementValidator, *, reader: bool) -> "Kademlia":
        """A `reader` keeps no records for others, and answers nobody."""
        protocol: Kademlia = await cls.create(
            p2p,
            place_of(p2p.peer_id),
            BUCKET_SIZE,
            DEPTH_MODULO,
            REPLICAS,
            CALL_S,
            client_mode=reader,
            record_validator=validator,
        )
        protocol.storage = protocol.shelf
        return protocol

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        return str(DHTProtocol._get_handle_name(namespace, method_name))  # other peers know it by that name

    async def rpc_ping(self, request: dht_pb2.PingRequest, context: P2PContext) -> dht_pb2.PingResponse:
        self._allowance.spend(context.remote_id, 1)
        await self._introduce(request, context)
        available = request.validate and await self.call_ping(context.remote_id) is not None
        return dht_pb2.PingResponse(peer=self.node_info, dht_time=get_dht_time(), available=available)

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        fields = request.keys, request.subkeys, request.values, request.expiration_time
        if len({len(field) for field in fields}) != 1 or len(request.keys) > MAX_STORED:
            raise RefusedError(f"a request stores at most {MAX_STORED} records, each with its four fields")
        self._allowance.spend(context.remote_id, max(1, len(request.keys)))
        await self._introduce(request, context)
        by = PeerID(context.remote_id.to_base58())
        kept = [self._keep(DHTRecord(*record), by) for record in zip(*fields, strict=True)]
        return dht_pb2.StoreResponse(store_ok=kept, peer=self.node_info)

    def _keep(self, record: DHTRecord, by: PeerID) -> bool:
        """Keep what the node that announces itself brings, and nobody else."""
        if len(record.key) != DHTID.HASH_NBYTES or len(record.subkey) > MAX_SUBKEY:
            return False
        try:
            key, subkey = DHTID.from_bytes(record.key), MSGPackSerializer.loads(record.subkey)
            room = self.shelf.has_room(key, subkey, record.expiration_time, by)
        except Exception:  # whatever a stranger's bytes make of a serializer, or its subkey of a dictionary
            return False
        announcement = self.record_validator.read(record) if room else None
        if announcement is None or peer_id(announcement.node) != by:
            return False
        return self.shelf.store(key, record.value, record.expiration_time, subkey, by)

    async def rpc_find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        if len(request.keys) > MAX_ASKED or any(len(key) != DHTID.HASH_NBYTES for key in request.keys):
            raise RefusedError(f"a request asks for at most {MAX_ASKED} keys")
        keys = [DHTID.from_bytes(key) for key in request.keys]
        self._allowance.spend(context.remote_id, sum(1 + self.shelf.size(key) / RECORDS_PER_UNIT for key in keys))
        await self._introduce(request, context)
        return dht_pb2.FindResponse(results=[self._find(key, context.remote_id) for key in keys], peer=self.node_info)

    def _find(self, key: DHTID, asking: LibP2PPeerID) -> dht_pb2.FindResult:
        near = self.routing_table.get_nearest_neighbors(key, k=self.bucket_size, exclude=place_of(asking))
        result = dht_pb2.FindResult(
            type=dht_pb2.NOT_FOUND,
            nearest_node_ids=[place.to_bytes() for place, _ in near],
            nearest_peer_ids=[peer.to_bytes() for _, peer in near],
        )
        if answer := self.shelf.answer(key):
            result.type = dht_pb2.FOUND_DICTIONARY
            result.value, result.expiration_time = answer
        return result

    async def _introduce(self, request: Any, context: P2PContext) -> None:
        """Take a peer that offers itself into the routing table."""
        if request.peer.node_id:
            await self.update_routing_table(None, context.remote_id)

    async def update_routing_table(self, node_id: DHTID | None, peer_id: LibP2PPeerID, responded: bool = True) -> None:
        """As hivemind's, but wherever a peer says that it is, its place is its own."""
        await super().update_routing_table(place_of(peer_id), peer_id, responded)
