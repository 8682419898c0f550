"""A bootstrap peer introduces others to each other, comes back after its p2pd's end, and ends when told."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nectar_protocol.announcement import Announcement
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_swarm import membership
from nectar_swarm.bootstrap import run_bootstrap
from nectar_swarm.directory import Directory
from nectar_swarm.errors import KeyFileError
from nectar_swarm.host import Host, Listen
from nectar_swarm.keyfile import load_key
from nectar_swarm.peeraddress import PeerAddress

Announce = Callable[..., Announcement]
StartHost = Callable[..., Awaitable[Host]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

MODEL = ModelID(b"m" * 32)

sees_processes = pytest.mark.skipif(sys.platform != "linux", reason="looks for p2pd in /proc")


@dataclass
class Bootstrap:
    key_file: Path
    task: asyncio.Task[None]
    stop: asyncio.Event
    others: set[int]  # this process's children that are not its own
    ready: list[list[str]] = field(default_factory=list)

    @property
    def children(self) -> set[int]:
        return set(children()) - self.others


@pytest.fixture
async def running(tmp_path: Path, eventually: Eventually) -> AsyncIterator[Bootstrap]:
    key, stop, ready = tmp_path / "bootstrap.key", asyncio.Event(), list[list[str]]()
    others = set(children())
    work = run_bootstrap(key, Listen("127.0.0.1"), (), None, stop, ready.append)
    task = asyncio.create_task(work)
    await eventually(lambda: ready or task.done())
    yield Bootstrap(key, task, stop, others, ready)
    stop.set()
    await task


async def test_two_who_know_only_the_bootstrap_find_each_other(
    running: Bootstrap, start_host: StartHost, announce: Announce, tmp_path: Path
) -> None:
    [[text]] = running.ready
    at = PeerAddress.parse(text)
    assert at.peer == load_key(running.key_file).peer_id
    node, reader = await start_host(), await start_host(listen=None)
    serving, reading = await Directory.join(node, [at]), await Directory.join(reader, [at], reader=True)
    await serving.announce(own := announce(Identity.generate(), MODEL, addresses=await node.addresses()))
    assert await reading.nodes(MODEL) == [own]
    await reader.connect(node.peer_id, own.addresses)
    for directory in (serving, reading):
        await directory.close()


@sees_processes
async def test_its_p2pd_is_started_again_under_the_same_name(
    running: Bootstrap, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "RESTART_S", 0.05)
    [child] = running.children
    os.kill(child, signal.SIGKILL)
    await eventually(lambda: len(running.ready) == 2)
    assert len({text.rpartition("/")[2] for [text] in running.ready}) == 1


@sees_processes
async def test_told_to_stop_it_leaves_no_p2pd_behind(running: Bootstrap) -> None:
    assert running.children
    running.stop.set()
    await running.task
    assert not running.children


async def test_its_key_is_held_while_it_runs(running: Bootstrap) -> None:
    with pytest.raises(KeyFileError, match="another process runs with the key"):
        await run_bootstrap(running.key_file, Listen("127.0.0.1"), (), None, asyncio.Event(), print)


def children() -> list[int]:
    """The p2pds of this process, without those that have ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text().rpartition(")")
            state, parent = rest.split()[:2]
            if int(parent) == os.getpid() and state != "Z" and b"p2pd" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
