"""Can others dial us? Peers that we have dialled are asked to try."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nectar_protocol.address import Address
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError

from nectar_swarm.circuit import Answer, Request, ask
from nectar_swarm.errors import RelayRefusedError, UnreachableError
from nectar_swarm.host import DIAL_TIMEOUT_S, Host
from nectar_swarm.peeraddress import PeerAddress


class Reachability(StrEnum):
    """What an operator says: AUTO asks peers at each start, PRIVATE is reached through relays only."""

    AUTO = "auto"
    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True)
class Verdict:
    """What peers found: nobody can dial us, or they can, at the address where one of them did."""

    hidden: bool
    seen: Address | None = None


async def find_out(host: Host, peers: Sequence[PeerAddress], port: int) -> Verdict | None:
    """What connected peers say of this port: we are hidden unless half of those that answer can dial us.

    None if none of them answers.
    """
    found = await asyncio.gather(*(_probe(host, peer, port) for peer in peers), return_exceptions=True)
    dialled = [address for address in found if isinstance(address, Address)]
    refused = [error for error in found if isinstance(error, RelayRefusedError) and error.answer == Answer.UNREACHABLE]
    if not dialled and not refused:
        return None
    return Verdict(False, dialled[0]) if len(dialled) >= len(refused) else Verdict(True)


async def _probe(host: Host, peer: PeerAddress, port: int) -> Address:
    """The address at which this peer can dial us. Raises RelayRefusedError, or UnreachableError without an answer."""
    reader, writer = await ask(host, peer.peer, Request.PROBE, uint(port, 2, "port"))
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            size = (await reader.readexactly(1))[0]
            return Address.read(Reader(await reader.readexactly(size)))
    except (OSError, EOFError, MalformedError) as error:
        raise UnreachableError(f"{peer.peer} does not say where it dialled us: {error}") from error
    finally:
        writer.close()
