"""What one peer of the DHT answers, or leaves unanswered, costs a reader a bounded time and hides nobody else."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgpack
import pytest
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.proto import dht_pb2
from hivemind.utils.serializer import MSGPackSerializer
from nectar_protocol.announcement import Announcement
from nectar_protocol.identity import Identity, peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm import directory as directory_module
from nectar_swarm import lookup as lookup_module
from nectar_swarm.answers import DICTIONARY
from nectar_swarm.directory import Directory
from nectar_swarm.host import Host
from nectar_swarm.kademlia import place_of
from nectar_swarm.lookup import Answer, Search, nearest
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.records import CLOCK_SKEW_MS, model_key

Announce = Callable[..., Announcement]
Start = Callable[..., Awaitable[Directory]]

MODEL = ModelID(b"m" * 32)
KEY = DHTID.generate(source=model_key(MODEL))
NODE = Identity.from_seed(b"n" * 32)
FOUND = dht_pb2.FOUND_DICTIONARY


def answer(*records: Any, room: Any = float("inf"), last_s: float = 4e9) -> dht_pb2.FindResult:
    inner = msgpack.packb([room, last_s, [list(record) for record in records]])
    value = msgpack.packb(msgpack.ExtType(DICTIONARY, inner))
    return dht_pb2.FindResult(type=FOUND, value=value, expiration_time=last_s)


def stored(word: Announcement, **other: Any) -> tuple[Any, Any, Any]:
    subkey, value = other.get("subkey", peer_id(word.node)), MSGPackSerializer.dumps(word.pack())
    return subkey, value, other.get("expires_s", word.expires_ms / 1000)


@pytest.fixture
async def start(start_host: Callable[..., Awaitable[Host]]) -> AsyncIterator[Start]:
    """`await start(*others)` joins the directory through the others."""
    started: list[Directory] = []

    async def join(*others: Directory, **arguments: Any) -> Directory:
        peers = [PeerAddress(other.host.peer_id, await other.host.addresses()) for other in others]
        started.append(await Directory.join(await start_host(), peers, **arguments))
        return started[-1]

    yield join
    for each in started:
        await each.close()


@pytest.fixture
async def honest(start: Start, announce: Announce) -> Directory:
    """Keeps the announcement of one node."""
    directory = await start()
    assert await directory.announce(announce(NODE, MODEL))
    return directory


EVIL: dict[str, Callable[[Announce], dht_pb2.FindResult]] = {
    "another life": lambda announce: answer(stored(announce(NODE, MODEL, stop=9), expires_s=4e9)),
    "never expires": lambda announce: answer(last_s=float("inf")),
    "no time": lambda announce: answer(last_s=float("nan")),
    "no room": lambda announce: answer(room=1),
    "room that is no number": lambda announce: answer(room="much"),
    "from the future": lambda announce: answer(
        stored(announce(Identity.generate(), MODEL, issued_ms=int(time.time() * 1000) + CLOCK_SKEW_MS + 9_000))
    ),
    "forged": lambda announce: answer(stored(announce(Identity.generate(), MODEL), subkey=NODE.peer_id)),
    "another kind": lambda announce: dht_pb2.FindResult(type=dht_pb2.FOUND_REGULAR, value=b"x", expiration_time=4e9),
    "garbage": lambda announce: dht_pb2.FindResult(type=FOUND, value=os.urandom(1000), expiration_time=4e9),
    "neighbours that are none": lambda announce: dht_pb2.FindResult(nearest_peer_ids=[b"", b"x", os.urandom(38)]),
    "thousands of names": lambda announce: answer(*((f"name{at}", b"junk", 4e9) for at in range(9000))),
}


@pytest.mark.parametrize("kind", EVIL)
async def test_whatever_one_peer_answers_the_others_are_heard(
    start: Start, honest: Directory, announce: Announce, kind: str
) -> None:
    evil = await start(honest)
    reader = await start(evil, honest, reader=True)
    evil._dht._find = lambda key, asking: EVIL[kind](announce)
    assert [found.node for found in await reader.nodes(MODEL)] == [NODE.public]


async def test_a_word_of_the_future_is_left_out_and_its_neighbours_are_read(
    start: Start, honest: Directory, announce: Announce
) -> None:
    reader = await start(honest, reader=True)
    future = announce(Identity.generate(), MODEL, issued_ms=int(time.time() * 1000) + CLOCK_SKEW_MS + 9_000)
    honest._dht.shelf.store(KEY, stored(future)[1], stored(future)[2], peer_id(future.node))  # by a clock that is ahead
    assert [found.node for found in await reader.nodes(MODEL)] == [NODE.public]


async def test_a_peer_that_never_answers_is_not_waited_for_in_each_reading(
    start: Start, honest: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = await start(honest)
    reader, asked = await start(honest, silent, reader=True), []
    monkeypatch.setattr(lookup_module, "CALL_S", 0.5)
    os.kill(silent.host.daemon_pid, signal.SIGSTOP)
    get_stub = reader._dht.get_stub
    reader._dht.get_stub = lambda peer: (asked.append(peer), get_stub(peer))[1]
    for _ in range(3):
        assert [found.node for found in await reader.nodes(MODEL)] == [NODE.public]
    assert [asked.count(LibP2PPeerID.from_base58(each.host.peer_id)) for each in (silent, honest)] == [1, 3]


async def test_nodes_that_are_known_are_read_from_among_thousands(
    start: Start, honest: Directory, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "MAX_VERIFIED", 20)
    for _ in range(500):
        spam = announce(Identity.generate(), MODEL)
        assert honest._dht.shelf.store(KEY, stored(spam)[1], stored(spam)[2], peer_id(spam.node))
    reader = await start(honest, reader=True)
    for _ in range(3):
        found = await reader.nodes(MODEL, {NODE.peer_id})
        assert len(found) == 20
        assert found[0].node == NODE.public
    everybody = {each.node for _ in range(10) for each in await reader.nodes(MODEL)}
    assert len(everybody) > 100  # not always the same


async def test_readers_go_on_while_somebody_reads_thousands(
    start: Start, honest: Directory, announce: Announce
) -> None:
    for _ in range(1000):
        spam = announce(Identity.generate(), MODEL)
        honest._dht.shelf.store(KEY, stored(spam)[1], stored(spam)[2], peer_id(spam.node))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    reading = asyncio.create_task(honest.nodes(MODEL))
    assert len(await reading) == 1001
    counting.cancel()
    assert turns >= 1001 // directory_module.VERIFIED_PER_TURN


# Whom a search asks


def peers(count: int) -> list[LibP2PPeerID]:
    return [LibP2PPeerID.from_base58(Identity.generate().peer_id) for _ in range(count)]


def test_a_search_asks_the_nearest_that_may_answer_and_nobody_twice() -> None:
    everybody = sorted(peers(50), key=lambda peer: KEY.xor_distance(place_of(peer)))
    search = Search(KEY, (), everybody[30:])
    assert set(search.next()) == set(everybody[30:])
    assert search.next() == []
    for peer in everybody[30:]:
        search.take(peer, Answer(everybody[:30]))
    assert set(search.next()) == set(everybody[:20])
    search.take(everybody[0], None)
    assert search.next() == [everybody[20]]
    assert nearest(search.answers, KEY, 2) == everybody[30:32]


def test_names_without_end_make_a_search_ask_a_bounded_number() -> None:
    always, asked = peers(1), 0
    search = Search(KEY, always, ())
    while asking := search.next():
        asked += len(asking)
        for peer in asking:
            search.take(peer, Answer(peers(20)) if peer in always else None)
            search._heard.update(peers(20))
    assert asked == lookup_module.MAX_CALLS
    assert set(search.answers) == set(always)
