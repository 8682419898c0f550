"""However a peer dies, the others are told, once: killed, stopped, closed, or drowned in what it does not read."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nectar_swarm import backlog
from nectar_swarm import peers as peers_module
from nectar_swarm.errors import UnreachableError
from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Hello
from nectar_swarm.peers import PROTOCOL

from tests.swarm.byhand import ByHand

Join = Callable[..., Awaitable[Any]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
HELLO = b"".join(encode(0, Kind.HELLO, Hello(1, 3).pack()))


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
