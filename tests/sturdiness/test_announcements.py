"""Announcements that are forged, live too long, or come by the thousand: not kept, or not in anybody's way."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgpack
import pytest
import pytest_asyncio
import torch
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PHandlerError
from hivemind.proto import dht_pb2
from hivemind.utils.serializer import MSGPackSerializer
from nectar import AutoDistributedModelForCausalLM, Connection
from nectar_protocol.address import Address
from nectar_protocol.announcement import MAX_LIFE_MS, Announcement, NodeState, Profile
from nectar_protocol.identity import Identity, peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm.answers import DICTIONARY
from nectar_swarm.directory import Directory
from nectar_swarm.host import Host, Listen
from nectar_swarm.kademlia import MAX_STORED
from nectar_swarm.keyfile import create_key
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.records import model_key

from tests.sturdiness.peers import BLOCKS, noise
from tests.sturdiness.witnesses import Honest, run_blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOWHERE = (Address(IPv4Address("127.0.0.1"), 1),)
FAST_US = 1


class Member:
    """A peer of the node's directory that does there what a test says."""

    def __init__(self, host: Host, directory: Directory, identity: Identity, node: PeerAddress) -> None:
        self.host, self.directory, self.identity, self.node = host, directory, identity, node

    async def store(self, *said: Announcement, **other: Any) -> list[bool]:
        """Ask the node to keep these; `other` are the record's fields that are not those of the announcement."""
        request = dht_pb2.StoreRequest(
            keys=[DHTID.generate(source=model_key(each.model)).to_bytes() for each in said],
            subkeys=[MSGPackSerializer.dumps(other.get("subkey", peer_id(each.node))) for each in said],
            values=[MSGPackSerializer.dumps(each.pack()) for each in said],
            expiration_time=[other.get("expires_s", each.expires_ms / 1000) for each in said],
        )
        stub = self.directory._dht.get_stub(LibP2PPeerID.from_base58(self.node.peer))
        return list((await stub.rpc_store(request)).store_ok)


@pytest_asyncio.fixture(loop_scope="session")
async def member(at: PeerAddress, tmp_path: Path) -> AsyncIterator[Member]:
    identity = create_key(tmp_path / "member.key")
    host = await Host.start(key_file=tmp_path / "member.key", listen=Listen("127.0.0.1"))
    directory = await Directory.join(host, [at])
    yield Member(host, directory, identity, at)
    await directory.close()
    await host.close()


def announce(identity: Identity, model: ModelID, life_ms: int = 60_000) -> Announcement:
    now_ms = time.time_ns() // 1_000_000
    return Announcement(
        identity.public, model, now_ms, now_ms + life_ms, 0, BLOCKS, Profile.F32, NodeState.SERVING, FAST_US, FAST_US,
        NOWHERE,
    ).signed(identity)  # fmt: skip


def everybody_says(model: ModelID, count: int) -> list[Announcement]:
    return [announce(Identity.from_seed(number.to_bytes(32, "big")), model) for number in range(count)]


async def test_what_is_forged_or_lives_too_long_is_not_kept(member: Member, model: ModelID, at: PeerAddress) -> None:
    own, stranger = announce(member.identity, model), Identity.generate()
    forged = replace(announce(member.identity, model), decode_us=7)
    another = replace(own, node=stranger.public)
    too_long = announce(member.identity, model, MAX_LIFE_MS)
    future = replace(too_long, issued_ms=too_long.issued_ms + 30_000, expires_ms=too_long.expires_ms + 30_000)
    for wrong, other in (
        (forged, {}),
        (another, {}),
        (own, {"expires_s": own.expires_ms / 1000 + 60}),
        (own, {"expires_s": 4e9}),
        (own, {"subkey": at.peer}),
        (future.signed(member.identity), {}),
        (announce(stranger, model), {}),
    ):
        assert await member.store(wrong, **other) == [False]
    assert await member.store(own) == [True]


async def test_others_announcements_by_the_thousand_are_not_kept(
    member: Member, model: ModelID, honest: Honest
) -> None:
    said, kept, refused = everybody_says(model, 2000), list[bool](), list[str]()
    for at in range(0, len(said), MAX_STORED):
        try:
            kept += await member.store(*said[at : at + MAX_STORED])
        except P2PHandlerError as error:
            refused.append(str(error))
    assert not any(kept)
    assert len(refused) > 100
    assert all("RefusedError" in reason for reason in refused)
    honest.wait_for(3)


async def test_thousands_of_nodes_that_are_not_there_hide_none_that_is(
    member: Member, model: ModelID, at: PeerAddress, tiny_llama: Path, local: Any
) -> None:
    said = [
        (peer_id(a.node), MSGPackSerializer.dumps(a.pack()), a.expires_ms / 1000) for a in everybody_says(model, 5000)
    ]
    inner = msgpack.packb([float("inf"), 4e9, said])
    value = msgpack.packb(msgpack.ExtType(DICTIONARY, inner))
    found = dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value, expiration_time=4e9)
    member.directory._dht._find = lambda key, asking: found  # type: ignore[method-assign]
    hidden = noise(4, seed=5)
    want = run_blocks(local, hidden)
    evil = PeerAddress(member.host.peer_id, await member.host.addresses())

    def use() -> None:
        connection = Connection.open([str(evil), str(at)])
        distributed = AutoDistributedModelForCausalLM.from_pretrained(str(tiny_llama), connection=connection)
        with distributed.session(16) as session:
            torch.testing.assert_close(session.step(hidden, 0), want, rtol=0, atol=1e-3 * want.abs().max().item())
        known = connection.view.nodes(model)
        assert 1000 < len(known) < 2048
        connection.close()

    await asyncio.to_thread(use)
