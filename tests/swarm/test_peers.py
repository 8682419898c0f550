"""Links between processes' p2pds: made once, refused to strangers, and reported dead once, however they die."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nectar_protocol.identity import Identity
from nectar_swarm import link as link_module
from nectar_swarm import peers as peers_module
from nectar_swarm.errors import UnreachableError, WireError
from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Hello
from nectar_swarm.peers import PROTOCOL

Join = Callable[..., Awaitable[Any]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


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
        writer.write(encode(0, Kind.HELLO, Hello(2, 2).pack())[0])
        heard.append(await reader.read(1000))
        heard.append(await reader.read(1000))
        writer.close()

    await later.serve(PROTOCOL, greet)
    with pytest.raises(WireError, match="speaks wire versions 2 to 2, we speak 1 to 1"):
        await one.peers.connect(later.peer_id, await later.addresses())
    await eventually(lambda: len(heard) == 2)
    assert heard == [encode(0, Kind.HELLO, Hello(1, 1).pack())[0], b""]

    await later.connect(one.id, one.addresses)
    _, writer = await later.open_stream(one.id, PROTOCOL)
    await greet(None, _, writer)
    assert heard[2:] == [encode(0, Kind.HELLO, Hello(1, 1).pack())[0], b""]
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


async def test_no_peer_may_open_links_without_end(join: Join, start_host: Join, eventually: Eventually) -> None:
    one, greedy = await join(), await start_host()
    await greedy.connect(one.id, one.addresses)
    streams = [await greedy.open_stream(one.id, PROTOCOL) for _ in range(peers_module.MAX_LINKS_PER_PEER)]
    hello = encode(0, Kind.HELLO, Hello(1, 1).pack())[0]
    for reader, writer in streams:
        writer.write(hello)
        await reader.readexactly(len(hello))
    await eventually(lambda: len(one.peers._every.get(greedy.peer_id, ())) == len(streams))
    reader, writer = await greedy.open_stream(one.id, PROTOCOL)
    assert await reader.read() == b""
    for _, each in [*streams, (reader, writer)]:
        each.close()


# Death


async def test_a_killed_p2pd_is_seen_once_by_both(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    await one.connect(other)
    await eventually(lambda: other.peers.link(one.id))
    os.kill(other.host.daemon_pid, signal.SIGKILL)
    await eventually(lambda: one.handler.deaths and other.handler.deaths)
    await other.host.ended.wait()
    await asyncio.sleep(0.1)
    assert [peer for peer, _ in one.handler.deaths] == [other.id]
    assert [peer for peer, _ in other.handler.deaths] == [one.id]
    assert one.peers.link(other.id) is None


async def test_a_stopped_p2pd_is_suspected_then_dead_by_its_silence(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    os.kill(other.host.daemon_pid, signal.SIGSTOP)
    await eventually(lambda: link.suspected)
    assert not one.handler.deaths
    await eventually(lambda: one.handler.deaths)
    await asyncio.sleep(0.1)
    [(peer, reason)] = one.handler.deaths
    assert peer == other.id
    assert "silent" in reason
    os.kill(other.host.daemon_pid, signal.SIGCONT)


async def test_a_loop_that_slept_blames_itself(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    await link.measured.wait()
    link.heard -= peers_module.DEAD_S - peers_module.BEAT_S  # as if it had been silent until just before its death
    before = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < before + 3 * peers_module.BEAT_S:
        pass  # the loop sleeps
    await eventually(lambda: link.heard > before)
    assert not one.handler.deaths


async def test_the_others_close_is_a_death_like_any_other(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    await one.connect(other)
    await eventually(lambda: other.peers.link(one.id))
    await other.peers.close()
    await eventually(lambda: one.handler.deaths)
    [(peer, reason)] = one.handler.deaths
    assert (peer, "closed its link" in reason or "lost its link" in reason) == (other.id, True)


async def test_a_peer_that_has_closed_takes_no_links_until_it_serves_again(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    await other.peers.close()
    with pytest.raises(UnreachableError, match="does not speak"):
        await one.connect(other)
    again = peers_module.Peers(other.host, other.handler)
    await again.start()
    (await one.connect(other)).send(1, Kind.STEP, b"again")
    await eventually(lambda: other.handler.messages)
    await again.close()


async def test_after_a_death_a_new_link_can_be_made(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    first = await one.connect(other)
    one.peers.drop(other.id, "a test says so")
    assert one.handler.deaths == [(other.id, "a test says so")]
    one.peers.drop(other.id, "again")
    assert len(one.handler.deaths) == 1
    await eventually(lambda: other.handler.deaths)
    second = await one.connect(other)
    second.send(1, Kind.STEP, b"again")
    await eventually(lambda: other.handler.messages)
    assert second is not first


async def test_a_peer_that_reads_nothing_is_dropped_for_its_backlog(
    join: Join, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "MAX_BACKLOG", 16 << 20)
    one, other = await join(), await join()
    link = await one.connect(other)
    os.kill(other.host.daemon_pid, signal.SIGSTOP)
    for _ in range(60):
        link.send(1, Kind.STEP, bytes(1 << 20))
        await asyncio.sleep(0)
    await eventually(lambda: one.handler.deaths)
    assert link.held_bytes == 0
    os.kill(other.host.daemon_pid, signal.SIGCONT)
