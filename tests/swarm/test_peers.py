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
from nectar_swarm import backlog
from nectar_swarm import peers as peers_module
from nectar_swarm.errors import UnreachableError, WireError
from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Hello, Ping
from nectar_swarm.peers import PROTOCOL

Join = Callable[..., Awaitable[Any]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
HELLO = b"".join(encode(0, Kind.HELLO, Hello(1, 2).pack()))


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
        writer.write(next(encode(0, Kind.HELLO, Hello(3, 3).pack())))
        heard.append(await reader.read(1000))
        heard.append(await reader.read(1000))
        writer.close()

    await later.serve(PROTOCOL, greet)
    with pytest.raises(WireError, match="speaks wire versions 3 to 3, we speak 1 to 2"):
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


# Two links to one peer


@dataclass
class ByHand:
    """The other end of a link, written and read byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def greet(self) -> None:
        self.writer.write(HELLO)
        assert await self.reader.readexactly(len(HELLO)) == HELLO

    def send(self, session: int, kind: Kind, payload: bytes = b"") -> None:
        self.writer.write(b"".join(encode(session, kind, payload)))


class Both:
    """A peer by hand that has dialled `one` and was dialled by it."""

    def __init__(self, one: Any, host: Any) -> None:
        self.one, self.host = one, host
        self._dialled: asyncio.Queue[ByHand] = asyncio.Queue()

    async def link(self) -> tuple[ByHand, ByHand]:
        """The ends of the link that `one` dialled, on which it sends, and of the one that it accepted."""
        await self.host.serve(PROTOCOL, self._accept)
        connecting = asyncio.create_task(self.one.peers.connect(self.host.peer_id, await self.host.addresses()))
        dialled = await self._dialled.get()
        await connecting
        return dialled, await self.dial()

    async def _accept(self, peer: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = ByHand(reader, writer)
        await end.greet()
        self._dialled.put_nowait(end)

    async def dial(self) -> ByHand:
        await self.host.connect(self.one.id, self.one.addresses)
        end = ByHand(*await self.host.open_stream(self.one.id, PROTOCOL))
        await end.greet()
        end.send(0, Kind.STATUS, b"dialled")
        await eventually_message(self.one, b"dialled")
        return end


async def eventually_message(one: Any, payload: bytes) -> None:
    async with asyncio.timeout(30):
        while not (one.handler.messages and one.handler.messages[-1][3] == payload):
            await asyncio.sleep(0.01)
    one.handler.messages.pop()


async def test_the_end_of_the_link_we_send_on_is_a_death_that_leaves_the_other_open(
    join: Join, start_host: Join, eventually: Eventually
) -> None:
    both = Both(one := await join(), await start_host())
    dialled, accepted = await both.link()
    used = one.peers.link(both.host.peer_id)
    dialled.writer.close()
    await eventually(lambda: one.handler.deaths)
    accepted.send(1, Kind.STEP, b"still here")
    await eventually_message(one, b"still here")
    spare = one.peers.link(both.host.peer_id)
    assert spare is not None
    assert spare is not used
    assert spare is await one.peers.connect(both.host.peer_id, ())
    accepted.writer.close()  # it was given out, so this is a death again
    await eventually(lambda: len(one.handler.deaths) == 2)
    assert one.peers.link(both.host.peer_id) is None


async def test_the_end_of_the_other_link_is_no_death(join: Join, start_host: Join, eventually: Eventually) -> None:
    both = Both(one := await join(), await start_host())
    dialled, accepted = await both.link()
    used = one.peers.link(both.host.peer_id)
    accepted.writer.close()
    await eventually(lambda: not one.peers._accepted)
    dialled.send(1, Kind.STEP, b"still here")
    await eventually_message(one, b"still here")
    assert one.peers.link(both.host.peer_id) is used
    assert not one.handler.deaths
    dialled.writer.close()
    await eventually(lambda: one.handler.deaths)


async def test_a_link_that_falls_silent_beside_a_living_one_ends_alone(
    join: Join, start_host: Join, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "DEAD_S", 1.0)
    both = Both(one := await join(), await start_host())
    silent, living = await both.link()

    def dead() -> object:
        living.send(0, Kind.PING, Ping(0, 0).pack())
        return one.handler.deaths

    await eventually(dead)
    assert "silent" in one.handler.deaths[0][1]
    living.send(1, Kind.STEP, b"still here")
    await eventually_message(one, b"still here")
    assert len(one.handler.deaths) == 1
    for end in (silent, living):
        end.writer.close()


async def test_a_restarted_peer_that_dials_anew_is_told_dead_first_and_outlives_its_old_stream(
    join: Join, start_host: Join, eventually: Eventually
) -> None:
    both = Both(one := await join(), await start_host())
    old = await both.dial()
    new = await both.dial()
    assert one.handler.deaths == [(both.host.peer_id, "has dialled anew")]
    assert await old.reader.read() is not None  # to its end: we have let go of the old one
    old.writer.close()
    new.send(1, Kind.STEP, b"still here")
    await eventually_message(one, b"still here")
    one.peers.link(both.host.peer_id).send(7, Kind.STEP, b"for the new one")
    answer = b"".join(encode(7, Kind.STEP, b"for the new one"))
    received = b""
    while answer not in received:
        received += await new.reader.readexactly(1)
    assert len(one.handler.deaths) == 1
    new.writer.close()
    await eventually(lambda: len(one.handler.deaths) == 2)


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
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 16 << 20)
    one, other = await join(), await join()
    link = await one.connect(other)
    os.kill(other.host.daemon_pid, signal.SIGSTOP)
    for _ in range(60):
        link.send(1, Kind.STEP, bytes(1 << 20))
        await asyncio.sleep(0)
    await eventually(lambda: one.handler.deaths)
    assert link.backlog_bytes == 0
    os.kill(other.host.daemon_pid, signal.SIGCONT)


async def test_of_all_peers_that_read_nothing_the_one_that_holds_most_loses_its_link(
    join: Join, start_host: Join, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_TOTAL_BACKLOG", 16 << 20)
    one, readers = await join(), [await start_host() for _ in range(2)]
    ends: list[ByHand] = []

    async def greet_only(peer: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(ByHand(reader, writer))
        await ends[-1].greet()

    links = []
    for host in readers:
        await host.serve(PROTOCOL, greet_only)
        links.append(await one.peers.connect(host.peer_id, await host.addresses()))
    for _ in range(6):
        links[0].send(1, Kind.STEP, bytes(1 << 20))
    for _ in range(32):
        links[1].send(1, Kind.STEP, bytes(1 << 20))
        await asyncio.sleep(0.001)
    await eventually(lambda: one.handler.deaths)
    [(peer, reason)] = one.handler.deaths
    assert peer == readers[1].peer_id
    assert "on all links" in reason
    assert one.peers.link(readers[0].peer_id) is links[0]
    assert sum(link.backlog_bytes for link in links) <= 16 << 20
    for end in ends:
        end.writer.close()
