"""Bytes that no honest peer sends: the stream they come on ends, or what they hold is refused; nobody else notices."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from nectar_protocol.identity import Identity
from nectar_swarm.frames import HEADER, MAX_FRAME, MAX_MESSAGE, MAX_PARTIAL_MESSAGES, MORE, Kind, encode
from nectar_swarm.host import Host
from nectar_swarm.messages import Error, Neighbours, Step
from nectar_swarm.peeraddress import PeerAddress

from tests.sturdiness.peers import HANGS_S, Stranger, noise, read_to_the_end, stream
from tests.sturdiness.witnesses import Memory

pytestmark = pytest.mark.asyncio(loop_scope="session")

VECTORS = Path(__file__).parents[1] / "vectors" / "wire_v3.json"
RECORDED = [bytes.fromhex(case["frame"]) for case in json.loads(VECTORS.read_text())["frames"]]
HELLO = RECORDED[0]
SENT = (Kind.OPEN, Kind.REROUTE, Kind.ROUTED, Kind.STEP, Kind.CLOSE, Kind.ERROR, Kind.ASK, Kind.STATUS)


def spoil(data: bytes, dice: random.Random) -> bytes:
    """The same with some bytes changed, lost, doubled or added."""
    spoiled = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(spoiled) + 1)
        match dice.randrange(6):
            case 0:
                spoiled[at : at + 1] = dice.randbytes(1)
            case 1:
                spoiled[at : at + 4] = dice.choice([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"])
            case 2:
                del spoiled[at : at + dice.randint(1, 40)]
            case 3:
                spoiled[at:at] = spoiled[at : at + 20]
            case 4:
                spoiled[at:at] = dice.randbytes(dice.randint(1, 200))
            case 5:
                other = dice.choice(RECORDED)
                spoiled[at:] = other[dice.randrange(len(other)) :]
    return bytes(spoiled)


def broken_stream(number: int, dice: random.Random) -> bytes:
    frames = b"".join(dice.choice(RECORDED) for _ in range(dice.randint(1, 8)))
    return (
        dice.randbytes(dice.randint(1, 4000)),
        HELLO + dice.randbytes(dice.randint(1, 4000)),
        HELLO + spoil(frames, dice),
        spoil(HELLO + frames, dice),
    )[number % 4]


async def pour(vandal: Host, at: PeerAddress, data: bytes) -> None:
    """Send these bytes on a stream of their own, and go once they must have been read."""
    reader, writer = await stream(vandal, at)
    writer.write(data)
    try:
        async with asyncio.timeout(0.02):
            while await reader.read(1 << 16):
                pass
    except (TimeoutError, OSError):
        pass
    writer.transport.abort()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
async def test_fuzzed_streams_harm_nobody(vandal: Host, at: PeerAddress, seed: int) -> None:
    dice = random.Random(seed)
    for number in range(300):
        await pour(vandal, at, broken_stream(number, dice))


async def test_fuzzed_messages_are_refused_and_their_link_lives_on(stranger: Stranger) -> None:
    dice, session = random.Random(2), await stranger.open()
    hidden = noise(2)
    good = {
        Kind.OPEN: stranger.request().pack(),
        Kind.REROUTE: Neighbours(2, None, Identity.from_seed(b"x" * 32).peer_id).pack(),
        Kind.STEP: Step(1, 1, 0, hidden).pack(),
    }
    for _ in range(1500):
        kind = dice.choice(SENT)
        payload = spoil(good[kind], dice) if kind in good else dice.randbytes(dice.randint(0, 300))
        stranger.send(dice.choice([session, dice.randrange(1 << 20, 1 << 21)]), payload, kind)
        await asyncio.sleep(0)
    await stranger.status()
    assert not stranger.lost.is_set()
    answers = [answer for number in list(stranger.inbox) for answer in stranger.answers(number)]
    assert sum(isinstance(answer, Error) for answer in answers) > 100
    fresh = await stranger.open()
    await stranger.step(fresh, Step(1, 1, 0, hidden))


def frame(length: int, kind: int, payload: bytes = b"", *, session: int = 1, flags: int = 0) -> bytes:
    return HEADER.pack(length, session, kind, flags) + payload


BROKEN = {
    "declares 4 GiB": frame(0xFFFFFFFF, Kind.STEP),
    "is a byte too long": frame(MAX_FRAME + 1, Kind.STEP),
    "is of no kind": frame(0, 99),
    "has flags of its own": frame(0, Kind.STEP, flags=0x80),
    "is an empty piece": frame(0, Kind.STEP, flags=MORE),
    "leaves too many unfinished": b"".join(
        frame(1, Kind.STEP, b"x", session=number, flags=MORE) for number in range(MAX_PARTIAL_MESSAGES + 1)
    ),
    "is a message without an end": frame(MAX_FRAME, Kind.STEP, bytes(MAX_FRAME), flags=MORE)
    * (MAX_MESSAGE // MAX_FRAME + 1),
    "is a malformed heartbeat": frame(1, Kind.PING, b"x", session=0),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_frame_that_breaks_a_bound_ends_its_stream(
    vandal: Host, at: PeerAddress, memory: Memory, what: str
) -> None:
    memory.limit_mib += 2 * MAX_MESSAGE >> 20  # of the longest: as it comes, and joined
    reader, writer = await stream(vandal, at)
    writer.write(HELLO + BROKEN[what])
    await read_to_the_end(reader)
    writer.transport.abort()


@pytest.mark.parametrize(
    "greeting",
    [frame(0, Kind.ASK), frame(4, Kind.HELLO, b"\0\x09\0\x09", session=0), b"GET / HTTP/1.1\r\n\r\n" + bytes(20)],
    ids=["no greeting", "another version", "another protocol"],
)
async def test_who_does_not_greet_as_a_peer_does_is_sent_away(vandal: Host, at: PeerAddress, greeting: bytes) -> None:
    reader, writer = await stream(vandal, at)
    writer.write(greeting)
    await read_to_the_end(reader)
    writer.transport.abort()


async def test_who_stops_in_the_middle_is_not_waited_for(vandal: Host, at: PeerAddress) -> None:
    long = b"".join(encode(1, Kind.STEP, bytes(1 << 20)))
    begun = [b"", HELLO[:7], HELLO + long[: len(long) // 2]]
    streams = [await stream(vandal, at) for _ in begun]
    for (_, writer), data in zip(streams, begun, strict=True):
        writer.write(data)
    await asyncio.gather(*(read_to_the_end(reader) for reader, _ in streams))
    for _, writer in streams:
        writer.transport.abort()


async def test_a_peer_has_only_so_many_streams(vandal: Host, at: PeerAddress, stranger: Stranger) -> None:
    streams = [await stream(vandal, at) for _ in range(64)]
    ended = [asyncio.create_task(read_to_the_end(reader)) for reader, _ in streams]
    async with asyncio.timeout(HANGS_S):
        while sum(task.done() for task in ended) < len(streams) - 4:
            await asyncio.sleep(0.01)
    await stranger.step(await stranger.open(), Step(1, 1, 0, noise(2)))
    for task, (_, writer) in zip(ended, streams, strict=True):
        task.cancel()
        writer.transport.abort()
