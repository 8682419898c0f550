"""Our part of the DHT bears strangers: they have bounded room and work, and their own place, name and life only."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
from hivemind.proto import dht_pb2
from hivemind.utils.serializer import MSGPackSerializer
from nectar_protocol.announcement import Announcement
from nectar_protocol.identity import Identity, peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm import kademlia as kademlia_module
from nectar_swarm.answers import read_answer
from nectar_swarm.host import Host
from nectar_swarm.kademlia import MAX_ASKED, MAX_STORED, Kademlia, place_of
from nectar_swarm.keyfile import create_key
from nectar_swarm.records import AnnouncementValidator, model_key
from nectar_swarm.shelf import MAX_PER_PEER

Announce = Callable[..., Announcement]
Begin = Callable[..., Awaitable[Kademlia]]

MODEL = ModelID(b"m" * 32)
KEY = DHTID.generate(source=model_key(MODEL))
FIND = dht_pb2.FindRequest(keys=[KEY.to_bytes()])


@pytest.fixture
async def begin(start_host: Callable[..., Awaitable[Host]], tmp_path: Path) -> AsyncIterator[Begin]:
    """`await begin(*others)` is a peer of the DHT that is connected to the others; its key is its `identity`."""
    hosts: dict[Kademlia, Host] = {}

    async def start(*others: Kademlia, reader: bool = False) -> Kademlia:
        path = tmp_path / f"{len(hosts)}.key"
        identity = create_key(path)
        host = await start_host(key_file=path)
        for other in others:
            await host.connect(hosts[other].peer_id, await hosts[other].addresses())
        protocol: Any = await Kademlia.begin(host.p2p, AnnouncementValidator(), reader=reader)
        protocol.identity = identity
        hosts[protocol] = host
        return protocol  # type: ignore[no-any-return]

    yield start
    for protocol in hosts:
        await protocol.shutdown()


def stub(asking: Kademlia, asked: Kademlia) -> Any:
    return asking.get_stub(asked.p2p.peer_id)


def words(peer: Any, announce: Announce, count: int, **fields: Any) -> list[Announcement]:
    """What a peer says of itself, of so many models."""
    return [announce(peer.identity, ModelID(secrets.token_bytes(32)), **fields) for _ in range(count)]


def records(*announcements: Announcement) -> dht_pb2.StoreRequest:
    return dht_pb2.StoreRequest(
        keys=[DHTID.generate(source=model_key(each.model)).to_bytes() for each in announcements],
        subkeys=[MSGPackSerializer.dumps(peer_id(each.node)) for each in announcements],
        values=[MSGPackSerializer.dumps(each.pack()) for each in announcements],
        expiration_time=[each.expires_ms / 1000 for each in announcements],
        in_cache=[True] * len(announcements),
    )


async def test_what_is_stored_is_found_as_with_hivemind(begin: Begin, announce: Announce) -> None:
    kept = await begin()
    other: Any = await begin(kept)
    word = announce(other.identity, MODEL)
    assert (await stub(other, kept).rpc_store(records(word))).store_ok == [True]
    assert Kademlia._get_handle_name(None, "rpc_find") == DHTProtocol._get_handle_name(None, "rpc_find")
    found = await DHTProtocol.call_find(other, kept.p2p.peer_id, [KEY])
    assert found is not None
    assert found[KEY][0].value.get(peer_id(word.node)).value == MSGPackSerializer.dumps(word.pack())


async def test_a_request_has_bounds(begin: Begin, announce: Announce) -> None:
    kept = await begin()
    other = await begin(kept)
    said = words(other, announce, MAX_STORED + 1)
    uneven = records(*said[:2])
    del uneven.values[1:]
    wrong = [
        stub(other, kept).rpc_store(records(*said)),
        stub(other, kept).rpc_store(uneven),
        stub(other, kept).rpc_find(dht_pb2.FindRequest(keys=[KEY.to_bytes()] * (MAX_ASKED + 1))),
        stub(other, kept).rpc_find(dht_pb2.FindRequest(keys=[b"short"])),
    ]
    for call in wrong:
        with pytest.raises(P2PHandlerError, match="RefusedError"):
            await call
    assert kept.shelf.count == 0
    assert all((await stub(other, kept).rpc_store(records(*said[:MAX_STORED]))).store_ok)


async def test_what_cannot_be_read_is_not_kept_and_spoils_nothing(begin: Begin, announce: Announce) -> None:
    kept = await begin()
    other = await begin(kept)
    request = records(*words(other, announce, 4))
    request.keys[0], request.subkeys[1], request.values[2] = b"k", b"\xc1", secrets.token_bytes(200)
    assert (await stub(other, kept).rpc_store(request)).store_ok == [False, False, False, True]
    unhashable = records(*words(other, announce, 1))
    unhashable.subkeys[0] = MSGPackSerializer.dumps([1])
    assert (await stub(other, kept).rpc_store(unhashable)).store_ok == [False]


async def test_a_peer_stores_its_own_words_and_few(begin: Begin, announce: Announce) -> None:
    kept = await begin()
    other = await begin(kept)
    valid = [announce(Identity.generate(), MODEL) for _ in range(MAX_STORED)]
    assert not any((await stub(other, kept).rpc_store(records(*valid))).store_ok)
    for first in (True, False):
        own = records(*words(other, announce, MAX_PER_PEER))
        assert (await stub(other, kept).rpc_store(own)).store_ok == [first] * MAX_PER_PEER
    assert kept.shelf.count == MAX_PER_PEER


async def test_a_stranger_cannot_end_a_record_by_storing_an_older_one_again(begin: Begin, announce: Announce) -> None:
    kept = await begin()
    other: Any = await begin(kept)
    older, newer = announce(other.identity, MODEL, life_ms=1_000), announce(other.identity, MODEL)
    assert (await stub(other, kept).rpc_store(records(newer))).store_ok == [True]
    assert (await stub(other, kept).rpc_store(records(older))).store_ok == [False]
    await asyncio.sleep(1.1)
    [found] = read_answer((await stub(other, kept).rpc_find(FIND)).results[0].value)
    assert found.expires_s == newer.expires_ms / 1000


async def test_a_peer_cannot_choose_its_place(begin: Begin) -> None:
    kept = await begin()
    other = await begin(kept)
    own = place_of(other.p2p.peer_id)
    for place in (DHTID(KEY ^ 1), DHTID(0)):
        other.node_info.node_id = place.to_bytes()
        await stub(other, kept).rpc_ping(dht_pb2.PingRequest(peer=other.node_info))
        await stub(other, kept).rpc_find(dht_pb2.FindRequest(peer=other.node_info))
        await stub(other, kept).rpc_store(dht_pb2.StoreRequest(peer=other.node_info))
        await kept.call_ping(other.p2p.peer_id)
    await asyncio.sleep(0)  # in which the ping's answer is taken in
    assert kept.routing_table.uid_to_peer_id == {own: other.p2p.peer_id}


async def test_a_peer_is_told_whether_it_answers(begin: Begin) -> None:
    kept = await begin()
    other, reader = await begin(kept), await begin(kept, reader=True)
    assert (await stub(other, kept).rpc_ping(dht_pb2.PingRequest(validate=True))).available
    assert not (await stub(reader, kept).rpc_ping(dht_pb2.PingRequest(validate=True))).available


async def test_a_peer_that_is_new_is_not_sent_what_we_keep(begin: Begin, announce: Announce) -> None:
    kept = await begin()
    other = await begin(kept)
    await stub(other, kept).rpc_store(records(*words(other, announce, 1)))
    newcomer = await begin(kept)
    await newcomer.call_ping(kept.p2p.peer_id)
    await newcomer.call_find(kept.p2p.peer_id, [place_of(newcomer.p2p.peer_id)])
    assert kept.routing_table.get(peer_id=newcomer.p2p.peer_id)
    assert newcomer.shelf.count == 0


async def test_one_peers_flood_is_refused_and_others_are_served(
    begin: Begin, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kademlia_module, "BURST_UNITS", 50.0)
    monkeypatch.setattr(kademlia_module, "UNITS_PER_S", 0.001)
    kept = await begin()
    flood: Any
    other: Any
    flood, other = await begin(kept), await begin(kept)
    request = records(announce(flood.identity, MODEL))
    answers = await asyncio.gather(*(stub(flood, kept).rpc_store(request) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(answer, P2PHandlerError) for answer in answers) == 150
    assert kept.shelf.count == 1
    for call in (stub(flood, kept).rpc_ping(dht_pb2.PingRequest()), stub(flood, kept).rpc_find(FIND)):
        with pytest.raises(P2PHandlerError, match="too many requests"):
            await call
    assert (await stub(other, kept).rpc_store(records(announce(other.identity, MODEL)))).store_ok == [True]
    assert len(read_answer((await stub(other, kept).rpc_find(FIND)).results[0].value)) == 2


async def test_a_reader_answers_nobody(begin: Begin) -> None:
    reader = await begin(reader=True)
    other = await begin(reader)
    with pytest.raises(P2PDaemonError, match="not supported"):
        await stub(other, reader).rpc_ping(dht_pb2.PingRequest())
