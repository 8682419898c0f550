"""The relay protocol: how peers that nobody can dial are reached through peers that everybody can.

On a stream `nectar/relay` the asking side sends one request, a kind u8 and its body, and gets one byte, an Answer:

    1 PROBE    port u16   Can you dial me at this port? OK is followed by a size u8 and that address
    2 RESERVE             Let others call me through you, as long as this stream lives and both sides send beats on it
    3 CONNECT  key 32     Call this peer for me: after OK the stream is a circuit to it

The called peer gets the circuit as a stream `nectar/called`. In a circuit runs a libp2p connection between the p2pds
of its two ends, who authenticate each other and encrypt as they do without a relay; the relay can only pass it on.
"""

import asyncio
import contextlib
from enum import IntEnum

from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PeerID

from nectar_swarm.errors import RelayRefusedError, UnreachableError
from nectar_swarm.host import DIAL_TIMEOUT_S, Host
from nectar_swarm.waiting import first_of

RELAY, CALLED = "nectar/relay", "nectar/called"
BEAT = b"\0"
BEAT_S, SILENCE_S = 5.0, 15.0
PIECE = 64 << 10
END_S = 5.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Request(IntEnum):
    PROBE = 1
    RESERVE = 2
    CONNECT = 3


class Answer(IntEnum):
    OK = 0
    BUSY = 1
    DENIED = 2
    UNKNOWN = 3
    UNREACHABLE = 4


WHY = {
    Answer.BUSY: "relays as much as it can already",
    Answer.DENIED: "does not relay for this peer",
    Answer.UNKNOWN: "has no reservation of this peer",
    Answer.UNREACHABLE: "cannot reach this peer",
}


async def ask(host: Host, relay: PeerID, kind: Request, body: bytes = b"") -> Stream:
    """The stream behind a connected peer's OK. Raises RelayRefusedError, or UnreachableError without an answer."""
    reader, writer = await host.open_stream(relay, RELAY)
    accepted = False
    try:
        async with asyncio.timeout(2 * DIAL_TIMEOUT_S):  # the relay itself may have to dial
            writer.write(bytes([kind]) + body)
            answer = Answer((await reader.readexactly(1))[0])
        accepted = answer is Answer.OK
    except (OSError, EOFError, ValueError) as error:
        raise UnreachableError(f"{relay} did not answer as a relay: {error or type(error).__name__}") from error
    finally:
        if not accepted:
            writer.close()
    if not accepted:
        raise RelayRefusedError(f"{relay} {WHY[answer]}", answer)
    return reader, writer


async def read_request(reader: asyncio.StreamReader) -> tuple[Request, bytes]:
    """Raises MalformedError, EOFError or OSError."""
    kind = (await reader.readexactly(1))[0]
    sizes = {Request.PROBE: 2, Request.RESERVE: 0, Request.CONNECT: 32}
    if kind not in sizes:
        raise MalformedError(f"request {kind} is unknown")
    return Request(kind), await reader.readexactly(sizes[Request(kind)])


async def hold(stream: Stream) -> None:
    """Keep a reservation's stream until the other side closes it or has been silent too long."""
    reader, writer = stream

    async def beat() -> None:
        while True:
            writer.write(BEAT)
            await asyncio.sleep(BEAT_S)

    beating = asyncio.create_task(beat())
    try:
        with contextlib.suppress(OSError):  # TimeoutError is one
            while True:
                async with asyncio.timeout(SILENCE_S):
                    if not await reader.read(PIECE):
                        return
    finally:
        beating.cancel()
        writer.close()


async def splice(one: Stream, other: Stream) -> None:
    """Pass bytes both ways until one side ends; then both are closed."""
    writers = one[1], other[1]
    try:
        await first_of(_pass(one[0], other[1]), _pass(other[0], one[1]))
        for writer in writers:
            writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):  # for what is on its way
                await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    finally:
        for writer in writers:
            writer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
