"""Links between processes' p2pds: made once, refused to strangers, and reported dead once, however they die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from nectar_protocol.address import Address
from nectar_protocol.identity import Identity
from nectar_swarm import peers as peers_module
from nectar_swarm.errors import UnreachableError, WireError
from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Hello
from nectar_swarm.peers import PROTOCOL

Join = Callable[..., Awaitable[Any]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
HELLO = b"".join(encode(0, Kind.HELLO, Hello(1, 3).pack()))


@dataclass
class Silence:
    """Somebody who takes connections and never says a word."""

    at: Address
    callers: list[asyncio.StreamWriter]


@pytest.fixture
async def silence() -> AsyncIterator[Silence]:
    callers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: callers.append(writer), "127.0.0.1", 0)
    yield Silence(Address(ip_address("127.0.0.1"), server.sockets[0].getsockname()[1]), callers)
    for caller in callers:
        caller.close()
    server.close()


async def test_one_link_serves_all_who_connect(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    links = await asyncio.gather(*(one.connect(other) for _ in range(5)))
    assert set(links) == {await one.connect(other)} == {one.peers.link(other.id)}
    await eventually(lambda: other.peers.link(one.id))
    assert await other.connect(one) is other.peers.link(one.id)  # the same stream, from its other end


async def test_both_may_dial_at_once(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    there, back = await asyncio.gather(one.connect(other), other.connect(one))
    for number in range(20):
        there.send(1, Kind.STEP, bytes([number]))
        back.send(1, Kind.STEP, bytes([number]))
    await eventually(lambda: len(one.handler.messages) == len(other.handler.messages) == 20)
    for party in (one, other):
        assert [payload[0] for _, _, _, payload in party.handler.messages] == list(range(20))
    os.kill(other.host.daemon_pid, signal.SIGKILL)
    await eventually(lambda: one.handler.deaths and other.handler.deaths)
    await asyncio.sleep(0.1)
    assert [peer for peer, _ in one.handler.deaths] == [other.id]


async def test_a_peer_cannot_dial_itself(join: Join) -> None:
    one = await join()
    with pytest.raises(UnreachableError, match="itself"):
        await one.connect(one)


async def test_nobody_at_the_address_is_unreachable(join: Join) -> None:
    one, other = await join(), await join()
    await other.host.close()
    with pytest.raises(UnreachableError, match=other.id):
        await one.connect(other)
    assert one.peers.link(other.id) is None
    assert not one.handler.deaths


async def test_another_peer_at_the_address_is_not_taken_for_it(join: Join) -> None:
    one, other = await join(), await join()
    wanted = Identity.generate().peer_id
    with pytest.raises(UnreachableError, match=wanted):
        await one.peers.connect(wanted, other.addresses)
    assert not other.handler.messages


async def test_a_peer_that_speaks_another_protocol_is_unreachable(join: Join, start_host: Join) -> None:
    one, stranger = await join(), await start_host()
    with pytest.raises(UnreachableError, match=f"does not speak {PROTOCOL}"):
        await one.peers.connect(stranger.peer_id, await stranger.addresses())


async def test_wrong_addresses_from_somebody_else_do_not_spoil_the_right_ones(join: Join, silence: Silence) -> None:
    one, other = await join(), await join()
    misled = asyncio.create_task(one.peers.connect(other.id, (silence.at,)))
    await asyncio.sleep(0)
    link = await one.connect(other)
    assert link is one.peers.link(other.id)
    misled.cancel()


async def test_only_so_many_dials_are_under_way_at_once(
    join: Join, eventually: Eventually, silence: Silence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "MAX_DIALS", 4)
    one = await join()
    dials = [asyncio.create_task(one.peers.connect(Identity.generate().peer_id, (silence.at,))) for _ in range(20)]
    await eventually(lambda: len(silence.callers) == 4)
    await asyncio.sleep(0.1)
    assert len(silence.callers) == 4
    for dial in dials:
        dial.cancel()


# The allow-list


async def test_a_stranger_cannot_open_a_stream(join: Join, eventually: Eventually) -> None:
    friend, stranger = await join(), await join()
    one = await join(allowed=frozenset({friend.id}))
    with pytest.raises((WireError, UnreachableError)):
        await stranger.connect(one)
    link = await friend.connect(one)
    link.send(1, Kind.STEP, b"hello")
    await eventually(lambda: one.handler.messages)
    assert one.peers.link(stranger.id) is None
    assert [peer for peer, *_ in one.handler.messages] == [friend.id]
    assert not one.handler.deaths


async def test_a_stranger_is_not_dialled(join: Join) -> None:
    one, stranger = await join(allowed=frozenset()), await join()
    with pytest.raises(UnreachableError, match="not on this swarm's list"):
        await one.connect(stranger)
    assert not stranger.handler.messages


# Whoever breaks the protocol


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff" * 14,
        b"".join(encode(0, Kind.PING, b"short")),
        b"\0\0\0\0" + bytes(8) + b"\x63\0",
        b"".join(encode(1, Kind.STEP, b"fine")) + b"\xff" * 14,
    ],
    ids=["too long a frame", "a malformed ping", "an unknown kind", "nonsense after a good message"],
)
async def test_a_peer_that_breaks_the_protocol_loses_its_link_and_others_live(
    join: Join, eventually: Eventually, wrong: bytes
) -> None:
    one, good, bad = await join(), await join(), await join()
    links = [await party.connect(one) for party in (good, bad)]
    await eventually(lambda: one.peers.link(bad.id))  # greeted there too, or this would be a refused greeting
    links[1]._writer.write(wrong)
    await eventually(lambda: one.handler.deaths)
    [(peer, reason)] = one.handler.deaths
    assert peer == bad.id
    assert "broke the protocol" in reason
    await eventually(lambda: bad.handler.deaths)
    links[0].send(1, Kind.STEP, b"still here")
    await eventually(lambda: one.handler.messages and one.handler.messages[-1][3] == b"still here")
    again = await bad.connect(one)  # it may come back
    assert again is not links[1]


async def test_a_peer_of_a_later_version_alone_is_refused_on_both_sides(
    join: Join, start_host: Join, eventually: Eventually
) -> None:
    one, later = await join(), await start_host()
    heard: list[bytes] = []

    async def greet(peer: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(encode(0, Kind.HELLO, Hello(4, 4).pack())))
        heard.append(await reader.read(1000))
        heard.append(await reader.read(1000))
        writer.close()

    await later.serve(PROTOCOL, greet)
    with pytest.raises(WireError, match="speaks wire versions 4 to 4, we speak 1 to 3"):
        await one.peers.connect(later.peer_id, await later.addresses())
    await eventually(lambda: len(heard) == 2)
    assert heard == [HELLO, b""]

    await later.connect(one.id, one.addresses)
    _, writer = await later.open_stream(one.id, PROTOCOL)
    await greet(None, _, writer)
    assert heard[2:] == [HELLO, b""]
    assert one.peers.link(later.peer_id) is None
    assert not one.handler.deaths


async def test_a_peer_that_never_greets_is_given_up(
    join: Join, start_host: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "DIAL_TIMEOUT_S", 0.3)
    one, mute = await join(), await start_host()

    async def listen(peer: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    await mute.serve(PROTOCOL, listen)
    with pytest.raises(UnreachableError, match="did not greet"):
        await one.peers.connect(mute.peer_id, await mute.addresses())


async def test_no_peer_may_open_streams_without_end(join: Join, start_host: Join, eventually: Eventually) -> None:
    one, greedy = await join(), await start_host()
    await greedy.connect(one.id, one.addresses)
    streams = [await greedy.open_stream(one.id, PROTOCOL) for _ in range(peers_module.MAX_LINKS_PER_PEER)]
    await eventually(lambda: one.peers._greeting[greedy.peer_id] == len(streams))
    streams.append(await greedy.open_stream(one.id, PROTOCOL))
    assert await streams[-1][0].read() == b""
    for _, writer in streams:
        writer.close()
