"""The caller's end of circuits: makes p2pd connect to a peer, directly or through one of its relays.

p2pd is told to dial a port of our own on loopback, and what it sends there goes into the circuit.
"""

import asyncio
import ipaddress
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from nectar_protocol.address import Address
from nectar_protocol.identity import PeerID, parse_peer_id, peer_id

from nectar_swarm.circuit import Request, ask, splice
from nectar_swarm.errors import UnreachableError
from nectar_swarm.host import Host

LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


class Tunnels:
    """All that one host has dug."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, peer: PeerID, addresses: Sequence[Address]) -> None:
        """Directly if one of the addresses allows it, else through each of its relays. Raises UnreachableError."""
        direct = [address for address in addresses if address.relay is None]
        relayed = [address for address in addresses if address.relay is not None]
        failures = []
        if direct:
            try:
                return await self.host.connect(peer, direct)
            except UnreachableError as error:
                failures.append(str(error))
        if relayed and await self.host.connection(peer) is not None:  # it has dialled us, perhaps as its relay
            return None
        for address in relayed:
            try:
                return await self._dig(peer, address)
            except UnreachableError as error:
                failures.append(str(error))
        raise UnreachableError("; ".join(failures))

    async def _dig(self, peer: PeerID, address: Address) -> None:
        assert address.relay is not None
        relay = peer_id(address.relay)
        if relay == self.host.peer_id:
            raise UnreachableError(f"{peer} has no connection to us, its relay")
        await self.host.connect(relay, [replace(address, relay=None)])
        circuit = await ask(self.host, relay, Request.CONNECT, parse_peer_id(peer))
        used = False

        def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal used
            if used:
                writer.close()
            else:
                used = True
                self._spawn(splice((reader, writer), circuit))

        entrance = await asyncio.start_server(enter, str(LOOPBACK))
        try:
            await self.host.connect(peer, [Address(LOOPBACK, entrance.sockets[0].getsockname()[1])])
        finally:
            entrance.close()
            if not used:
                circuit[1].close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
