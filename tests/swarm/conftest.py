"""What the tests of this folder share: small models in folders, and peers with a p2pd each on loopback."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import uvloop
from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host, Listen
from nectar_swarm.link import Link
from nectar_swarm.peers import Peers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.hubserver import HubServer, let_ask_hubs, serve

BLOCKS = 5


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Links are tested on both loops: their transports differ in when they write, pause and close."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_link.py":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(autouse=True)
def nectar_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own cache folder, so that none learns from another."""
    monkeypatch.setenv("NECTAR_CACHE", str(tmp_path / "nectar-cache"))
    return tmp_path / "nectar-cache"


def save_llama(folder: Path, shard_size: str) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=BLOCKS, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not part of the model")


@pytest.fixture(scope="session")
def llama_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model in several shards; to be read only."""
    folder = tmp_path_factory.mktemp("shards")
    save_llama(folder, "60KB")
    return folder


@pytest.fixture(scope="session")
def llama_single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in one file; to be read only."""
    folder = tmp_path_factory.mktemp("single")
    save_llama(folder, "1GB")
    return folder


@pytest.fixture
def shards(llama_shards: Path, tmp_path: Path) -> Path:
    """A copy of the model in shards, for a test to damage."""
    return Path(shutil.copytree(llama_shards, tmp_path / "model"))


@pytest.fixture
def single(llama_single: Path, tmp_path: Path) -> Path:
    """A copy of the model in one file, for a test to damage."""
    return Path(shutil.copytree(llama_single, tmp_path / "model"))


@dataclass
class Recorder:
    """A handler that keeps what it is told. `reply`, if there is one, is called with every message."""

    messages: list[tuple[PeerID, int, Kind, bytes]] = field(default_factory=list)
    deaths: list[tuple[PeerID, str]] = field(default_factory=list)
    reply: Callable[[Link, int, Kind, bytes], None] | None = None

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        self.messages.append((link.peer, session, kind, payload))
        if self.reply:
            self.reply(link, session, kind, payload)

    def on_dead(self, peer: PeerID, reason: str) -> None:
        self.deaths.append((peer, reason))


@dataclass
class Party:
    """One peer of a test."""

    host: Host
    peers: Peers
    handler: Recorder
    addresses: tuple[Address, ...]

    @property
    def id(self) -> PeerID:
        return self.host.peer_id

    async def connect(self, other: "Party") -> Link:
        return await self.peers.connect(other.id, other.addresses)


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until it is so; the limit is for tests that fail."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], object]], Awaitable[None]]:
    return eventually


@pytest.fixture
async def start_host() -> AsyncIterator[Callable[..., Awaitable[Host]]]:
    """`await start_host(...)` is a Host on loopback, closed at the end."""
    hosts: list[Host] = []

    async def start(**arguments: Any) -> Host:
        hosts.append(await Host.start(**{"listen": Listen("127.0.0.1")} | arguments))
        return hosts[-1]

    yield start
    for host in hosts:
        if not host.ended.is_set():
            with suppress(ProcessLookupError):  # it may have ended unheard
                os.kill(host.daemon_pid, signal.SIGCONT)  # one that a test has stopped would not end
        await host.close()


@pytest.fixture
async def join(start_host: Callable[..., Awaitable[Host]]) -> AsyncIterator[Callable[..., Awaitable[Party]]]:
    """`await join(...)` is a peer with a p2pd of its own; the arguments are those of Peers."""
    parties: list[Party] = []

    async def start(**arguments: Any) -> Party:
        host, handler = await start_host(), Recorder()
        peers = Peers(host, handler, **arguments)
        await peers.start()
        parties.append(Party(host, peers, handler, await host.addresses()))
        return parties[-1]

    yield start
    for party in parties:
        await party.peers.close()


Announce = Callable[..., Announcement]


@pytest.fixture
def announce() -> Announce:
    """`announce(identity, model, ...)` is a signed announcement of now; keywords change its fields."""

    def make(identity: Identity, model: ModelID, life_ms: int = 60_000, **fields: Any) -> Announcement:
        now_ms = int(time.time() * 1000)
        values: dict[str, Any] = {
            "issued_ms": now_ms, "expires_ms": now_ms + life_ms, "start": 0, "stop": 4, "profile": Profile.F32,
            "state": NodeState.SERVING, "decode_us": 1000, "prefill_us": 100, "addresses": (),
        }  # fmt: skip
        return Announcement(identity.public, model, **values | fields).signed(identity)

    return make


@pytest.fixture
def hub(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with the small model in shards."""
    let_ask_hubs(tmp_path / "hub-cache", monkeypatch)
    with serve(shards) as server:
        yield server
