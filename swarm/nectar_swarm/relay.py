"""What a peer that everybody can dial does for those that nobody can: tells them so, and carries circuits to them.

All of it is bounded. A relay learns who is connected to whom, when, and how much they send.
"""

import asyncio
import logging
from collections import Counter

from nectar_protocol.address import Address
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PeerID, PublicKey, parse_peer_id, peer_id

from nectar_swarm.circuit import CALLED, RELAY, Answer, Request, Stream, hold, read_request, splice
from nectar_swarm.errors import HostError, UnreachableError
from nectar_swarm.host import DIAL_TIMEOUT_S, Host

MAX_RESERVATIONS = 128
MAX_CIRCUITS, MAX_CIRCUITS_PER_CALLER = 256, 64
MAX_PROBES = 16
# libp2p's first words on every TCP connection, from both sides: they show that no other program listens there.
GREETING = b"\x13/multistream/1.0.0\n"

log = logging.getLogger(__name__)


class Relay:
    """Serves `nectar/relay` on a host. With `allowed`, only those peers may be reached through us."""

    def __init__(self, host: Host, allowed: frozenset[PeerID] | None = None) -> None:
        self._host, self._allowed = host, allowed
        self._reserved: dict[PeerID, Stream] = {}
        self._circuits: Counter[PeerID] = Counter()  # by caller
        self._probes = 0

    async def start(self) -> None:
        await self._host.serve(RELAY, self._accept)

    async def _accept(self, peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                kind, body = await read_request(reader)
            match kind:
                case Request.PROBE:
                    await self._probe(peer, int.from_bytes(body, "big"), writer)
                case Request.RESERVE:
                    await self._reserve(peer, (reader, writer))
                case Request.CONNECT:
                    await self._connect(peer, peer_id(PublicKey(body)), (reader, writer))
        except (OSError, EOFError, ProtocolError, HostError) as error:
            log.info("a relay request of %s failed: %s", peer, error)
        finally:
            writer.close()

    async def _probe(self, peer: PeerID, port: int, writer: asyncio.StreamWriter) -> None:
        """Only at the IP that the caller has: nobody can make us dial somebody else."""
        seen = await self._host.connection(peer)
        if self._probes >= MAX_PROBES:
            answer(writer, Answer.BUSY)
        elif seen is None or not port:
            answer(writer, Answer.UNREACHABLE)
        else:
            address = Address(seen.ip, port)
            self._probes += 1
            try:
                can = await can_dial(address)
            finally:
                self._probes -= 1
            answer(writer, Answer.OK if can else Answer.UNREACHABLE)
            if can:
                writer.write(bytes([len(address.pack())]) + address.pack())

    async def _reserve(self, peer: PeerID, stream: Stream) -> None:
        parse_peer_id(peer)  # only Ed25519 keys can be asked for
        if self._allowed is not None and peer not in self._allowed:
            answer(stream[1], Answer.DENIED)
        elif peer not in self._reserved and len(self._reserved) >= MAX_RESERVATIONS:
            answer(stream[1], Answer.BUSY)
        else:
            self._reserved[peer] = stream  # a new one takes the old one's place, whose end may not have been seen
            answer(stream[1], Answer.OK)
            try:
                await hold(stream)
            finally:
                if self._reserved.get(peer) is stream:
                    del self._reserved[peer]

    async def _connect(self, caller: PeerID, target: PeerID, stream: Stream) -> None:
        if target not in self._reserved:
            answer(stream[1], Answer.UNKNOWN)
            return
        if self._circuits.total() >= MAX_CIRCUITS or self._circuits[caller] >= MAX_CIRCUITS_PER_CALLER:
            answer(stream[1], Answer.BUSY)
            return
        self._circuits[caller] += 1
        try:
            called = await self._host.open_stream(target, CALLED)
            log.info("a circuit from %s to %s", caller, target)
            answer(stream[1], Answer.OK)
            await splice(stream, called)
        except UnreachableError:
            answer(stream[1], Answer.UNREACHABLE)
        finally:
            self._circuits[caller] -= 1
            self._circuits += Counter()  # forgets those at zero


def answer(writer: asyncio.StreamWriter, code: Answer) -> None:
    writer.write(bytes([code]))


async def can_dial(address: Address) -> bool:
    """Does a libp2p peer listen there?"""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(str(address.ip), address.port)
            try:
                writer.write(GREETING)
                return await reader.readexactly(len(GREETING)) == GREETING
            finally:
                writer.close()
    except (OSError, EOFError):
        return False
