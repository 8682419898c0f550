"""Finds the peers whose places are nearest to a key, and what they keep there.

In place of hivemind's own search, which verifies all that every peer answers, ends at the word of the first that
claims to have what never expires, drops a peer's whole answer for one bad record, and hangs on some that are broken.
Here every peer has a bounded time and an answer of bounded size, and none speaks for another.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from random import Random

from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.proto import dht_pb2
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PeerID, parse_peer_id

from nectar_swarm.answers import Stored, read_answer, sample, thin
from nectar_swarm.kademlia import BUCKET_SIZE, CALL_S, REPLICAS, Kademlia, place_of

GRACE_S = 0.5  # for the others, once as many have answered as keep a record
LOOKUP_S = 8.0
MAX_CALLS = 64
ASIDE_S = 5.0  # for which a peer that did not answer is not asked


@dataclass(frozen=True)
class Question:
    """What is kept under `key`: at most so many records, those with `known` subkeys before others."""

    key: DHTID
    known: Collection[object] = ()
    most: int = 0


@dataclass
class Answer:
    near: list[LibP2PPeerID]
    records: list[Stored] = field(default_factory=list)


class Search:
    """Whom to ask next: nobody twice, and the nearest first of those that may answer."""

    def __init__(self, key: DHTID, always: Collection[LibP2PPeerID], heard: Iterable[LibP2PPeerID]) -> None:
        self.answers: dict[LibP2PPeerID, Answer] = {}
        self._key, self._always, self._heard = key, always, {*always, *heard}
        self._asked: set[LibP2PPeerID] = set()
        self._silent: set[LibP2PPeerID] = set()

    def next(self) -> list[LibP2PPeerID]:
        near = {*nearest(self._heard - self._silent, self._key, BUCKET_SIZE), *self._always} - self._asked
        chosen = list(near)[: MAX_CALLS - len(self._asked)]
        self._asked.update(chosen)
        return chosen

    def take(self, peer: LibP2PPeerID, answer: Answer | None) -> None:
        if answer is None:
            self._silent.add(peer)
        else:
            self.answers[peer] = answer
            self._heard.update(answer.near)


class Lookup:
    """Asks through `protocol`, and keeps its routing table up to date. `always` are asked whatever their place."""

    def __init__(self, protocol: Kademlia, always: Iterable[PeerID]) -> None:
        self._protocol = protocol
        self._always = [LibP2PPeerID.from_base58(peer) for peer in always]
        self._aside_until_s: dict[LibP2PPeerID, float] = {}
        self._loop = asyncio.get_running_loop()
        self._chance = Random()

    async def nearest(self, key: DHTID) -> list[LibP2PPeerID]:
        """The peers that should keep a record, of those that answer."""
        neighbour = DHTID(key ^ 1)  # to whom the same are near, and under which there is nothing that they would send
        return nearest(await self._ask_around(Question(neighbour)), key, REPLICAS)

    async def records(self, question: Question) -> list[Stored]:
        """What we keep ourselves and what others do, from each in turn."""
        answers = await self._ask_around(question)
        own = self._thin(self._protocol.shelf.records(question.key), question)
        return sample((own, *(answer.records for answer in answers.values())), question.most)

    async def _ask_around(self, question: Question) -> dict[LibP2PPeerID, Answer]:
        """Ask the nearest peers that we know, and nearer ones of which they tell."""
        table = self._protocol.routing_table.get_nearest_neighbors(question.key, BUCKET_SIZE)
        search = Search(question.key, self._always, (peer for _, peer in table))
        pending: set[asyncio.Task[None]] = set()

        async def ask(peer: LibP2PPeerID) -> None:
            search.take(peer, await self._ask(peer, question))

        try:
            until_s = self._loop.time() + LOOKUP_S
            while (left_s := until_s - self._loop.time()) > 0:
                pending |= {asyncio.create_task(ask(peer)) for peer in search.next()}
                patience_s = GRACE_S if len(search.answers) >= REPLICAS else left_s
                if not pending:
                    break
                done, pending = await asyncio.wait(pending, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
        finally:
            for task in pending:
                task.cancel()
        return search.answers

    async def _ask(self, peer: LibP2PPeerID, question: Question) -> Answer | None:
        """What a peer says; None if it does not answer, or says what cannot be read."""
        now_s, protocol = self._loop.time(), self._protocol
        if self._aside_until_s.get(peer, 0.0) > now_s:
            return None
        request = dht_pb2.FindRequest(keys=[question.key.to_bytes()], peer=protocol.node_info)
        try:
            response = await protocol.get_stub(peer).rpc_find(request, timeout=CALL_S)
            answer = self._read(response, question)
        except Exception:  # of the network, of p2pd, of protobuf, or of what the peer says
            self._aside_until_s = {other: at_s for other, at_s in self._aside_until_s.items() if at_s > now_s}
            self._aside_until_s[peer] = self._loop.time() + ASIDE_S
            await protocol.update_routing_table(None, peer, responded=False)
            return None
        await protocol.update_routing_table(None, peer)
        return answer

    def _read(self, response: dht_pb2.FindResponse, question: Question) -> Answer:
        [result] = response.results
        answer = Answer([peer for raw in result.nearest_peer_ids[:BUCKET_SIZE] if (peer := self._peer(raw))])
        if question.most and result.type == dht_pb2.FOUND_DICTIONARY:
            answer.records = self._thin(read_answer(result.value), question)
        return answer

    def _thin(self, records: list[Stored], question: Question) -> list[Stored]:
        return thin(records, question.known, question.most, self._chance)

    def _peer(self, raw: bytes) -> LibP2PPeerID | None:
        """A peer of which another tells; None for ourselves, and for what is no peer of this swarm."""
        peer = LibP2PPeerID(raw)
        with contextlib.suppress(ProtocolError):
            parse_peer_id(peer.to_base58())
            return None if peer == self._protocol.p2p.peer_id else peer
        return None


def nearest(peers: Iterable[LibP2PPeerID], key: DHTID, most: int) -> list[LibP2PPeerID]:
    """So many of the peers, those whose places are nearest to the key."""
    return sorted(peers, key=lambda peer: key.xor_distance(place_of(peer)))[:most]
