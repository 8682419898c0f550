"""A real DHT of three peers: what nodes announce is read until it expires, and what strangers store is not kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.utils.serializer import MSGPackSerializer
from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_swarm.directory import Directory, connect_any, meeting_points
from nectar_swarm.errors import UnreachableError
from nectar_swarm.host import Host
from nectar_swarm.keyfile import create_key
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.records import INDEX_KEY, AnnouncementValidator, model_key

Announce = Callable[..., Announcement]
StartHost = Callable[..., Awaitable[Host]]
Join = Callable[..., Awaitable[Any]]

MODEL, OTHER_MODEL = ModelID(b"m" * 32), ModelID(b"o" * 32)


@dataclass
class Member:
    identity: Identity
    directory: Directory
    at: PeerAddress

    async def store(self, announcement: Announcement, **place: Any) -> bool:
        """Ask everybody to store it, with any key, subkey or life; was it kept by anybody?"""
        values: dict[str, Any] = {
            "key": model_key(announcement.model), "value": announcement.pack(), "subkey": self.identity.peer_id,
            "expiration_time": announcement.expires_ms / 1000,
        } | place  # fmt: skip
        key, value = DHTID.generate(source=values["key"]), MSGPackSerializer.dumps(values["value"])
        dht = self.directory._dht
        answers = [
            await dht.call_store(peer, [key], [value], values["expiration_time"], [values["subkey"]])
            for peer in list(dht.routing_table.peer_id_to_uid)
        ]
        assert len(answers) >= 2
        return any(answer is not None and answer[0] for answer in answers)


@pytest.fixture
async def member(start_host: StartHost, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Member]]]:
    """`await member(*others, ...)` joins the directory through the others."""
    members: list[Member] = []

    async def start(*others: Member, listen: bool = True, **arguments: Any) -> Member:
        path = tmp_path / f"{len(members)}.key"
        identity = create_key(path)
        host = await (start_host(key_file=path) if listen else start_host(key_file=path, listen=None))
        directory = await Directory.join(host, [other.at for other in others], **arguments)
        members.append(Member(identity, directory, PeerAddress(host.peer_id, await host.addresses())))
        return members[-1]

    yield start
    for each in members:
        await each.directory.close()


@pytest.fixture
async def three(member: Join) -> list[Member]:
    first = await member()
    return [first, await member(first), await member(first)]


async def test_what_one_announces_all_read(three: list[Member], announce: Announce) -> None:
    announcements = [announce(each.identity, MODEL, start=at, stop=at + 2) for at, each in enumerate(three)]
    for each, announcement in zip(three, announcements, strict=True):
        assert await each.directory.announce(announcement)
    for each in three:
        found = await each.directory.nodes(MODEL)
        assert sorted(found, key=lambda a: a.start) == announcements
        assert await each.directory.nodes(OTHER_MODEL) == []


async def test_the_index_lists_the_models(three: list[Member], announce: Announce) -> None:
    assert await three[0].directory.models() == []
    await three[0].directory.announce(announce(three[0].identity, OTHER_MODEL))
    await three[1].directory.announce(announce(three[1].identity, MODEL))
    await three[2].directory.announce(announce(three[2].identity, MODEL))
    assert [await each.directory.models() for each in three] == [[MODEL, OTHER_MODEL]] * 3


async def test_a_newer_word_replaces_an_older(three: list[Member], announce: Announce) -> None:
    node = three[0]
    await node.directory.announce(announce(node.identity, MODEL, stop=4))
    await node.directory.announce(newer := announce(node.identity, MODEL, life_ms=61_000, stop=8))
    for each in three:
        assert await each.directory.nodes(MODEL) == [newer]


async def test_a_node_that_leaves_has_the_last_word(three: list[Member], announce: Announce) -> None:
    node = three[0]
    await node.directory.announce(announce(node.identity, MODEL))
    last = announce(node.identity, MODEL, life_ms=61_000, state=NodeState.LEAVING)
    assert await node.directory.announce(last)
    for each in three:
        assert await each.directory.nodes(MODEL) == [last]


async def test_a_node_that_leaves_is_not_put_into_the_index(three: list[Member], announce: Announce) -> None:
    await three[0].directory.announce(announce(three[0].identity, MODEL, state=NodeState.LEAVING))
    assert [await each.directory.models() for each in three] == [[]] * 3


async def test_a_node_that_loads_is_seen(three: list[Member], announce: Announce) -> None:
    node = three[1]
    await node.directory.announce(announce(node.identity, MODEL, state=NodeState.JOINING))
    [found] = await three[2].directory.nodes(MODEL)
    assert found.state is NodeState.JOINING


async def test_a_word_that_is_not_renewed_vanishes(three: list[Member], announce: Announce) -> None:
    node = three[0]
    await node.directory.announce(announce(node.identity, MODEL, life_ms=2_000))
    await node.directory.announce(announce(node.identity, OTHER_MODEL))
    async with asyncio.timeout(30):
        while await three[2].directory.nodes(MODEL):
            await asyncio.sleep(0.2)
        while await three[2].directory.models() != [OTHER_MODEL]:
            await asyncio.sleep(0.2)


async def test_strangers_words_are_not_kept(three: list[Member], announce: Announce) -> None:
    node, stranger, _ = three
    own = announce(node.identity, MODEL)
    assert await node.directory.announce(own)
    fresh = announce(stranger.identity, MODEL, stop=9)
    later_s = own.expires_ms / 1000 + 30
    forged = replace(fresh, node=node.identity.public, expires_ms=own.expires_ms + 1000)
    attempts = [
        stranger.store(fresh, subkey=node.identity.peer_id),
        stranger.store(own, subkey=node.identity.peer_id, expiration_time=later_s),
        stranger.store(forged, subkey=node.identity.peer_id),
        stranger.store(fresh, key=model_key(OTHER_MODEL)),
        stranger.store(fresh, expiration_time=fresh.expires_ms / 1000 + 3600),
        stranger.store(fresh, value=b"garbage"),
        stranger.store(fresh, value=b"\0" * 5000),
        stranger.store(fresh, key=INDEX_KEY, subkey=OTHER_MODEL.hex()),
        stranger.store(fresh, key="free storage"),
        stranger.store(fresh, subkey=None),
    ]
    for attempt in attempts:
        assert not await attempt
    for each in three:
        assert await each.directory.nodes(MODEL) == [own]
        assert await each.directory.nodes(OTHER_MODEL) == []
        assert await each.directory.models() == [MODEL]


async def test_a_peer_that_runs_hiveminds_own_node_takes_part(
    three: list[Member], start_host: StartHost, announce: Announce, tmp_path: Path
) -> None:
    identity = create_key(tmp_path / "plain.key")
    host = await start_host(key_file=tmp_path / "plain.key")
    met = [str(peer) for peer in await connect_any(host, [each.at for each in three])]
    plain = await DHTNode.create(p2p=host.p2p, initial_peers=met, record_validator=AnnouncementValidator())
    own, other = announce(identity, MODEL), announce(three[0].identity, MODEL)
    await three[0].directory.announce(other)
    assert await plain.store(model_key(MODEL), own.pack(), own.expires_ms / 1000, subkey=identity.peer_id)
    for each in three:
        assert {found.node for found in await each.directory.nodes(MODEL)} == {own.node, other.node}
    read = await plain.get(model_key(MODEL), latest=True)
    assert {item.value for item in read.value.values()} == {own.pack(), other.pack()}
    await plain.shutdown()


async def test_with_an_allow_list_only_its_nodes_are_kept_or_believed(member: Join, announce: Announce) -> None:
    first = await member()
    stranger = await member(first)
    careful = await member(first, allowed=frozenset({first.identity.peer_id}))
    await stranger.directory.announce(announce(stranger.identity, OTHER_MODEL))
    await first.directory.announce(own := announce(first.identity, MODEL))
    assert await careful.directory.nodes(MODEL) == [own]
    assert await careful.directory.nodes(OTHER_MODEL) == []
    assert await careful.directory.models() == [MODEL]


async def test_a_reader_that_nobody_can_dial_reads(three: list[Member], member: Join, announce: Announce) -> None:
    await three[0].directory.announce(own := announce(three[0].identity, MODEL))
    reader = await member(three[1], listen=False, reader=True)
    assert await reader.directory.nodes(MODEL) == [own]
    assert await reader.directory.models() == [MODEL]


@pytest.fixture
def nobody() -> PeerAddress:
    return PeerAddress.parse(f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}")


async def test_one_initial_peer_that_answers_is_enough(
    three: list[Member], start_host: StartHost, announce: Announce, nobody: PeerAddress
) -> None:
    await three[0].directory.announce(own := announce(three[0].identity, MODEL))
    directory = await Directory.join(await start_host(), [nobody, three[2].at])
    assert await directory.nodes(MODEL) == [own]
    await directory.close()


async def test_without_an_initial_peer_that_answers_nobody_joins(start_host: StartHost, nobody: PeerAddress) -> None:
    with pytest.raises(UnreachableError, match="none of 2 initial peers can be reached"):
        await Directory.join(await start_host(), [nobody, nobody])


async def test_who_may_be_alone_begins_without_the_others_and_meets_them_later(
    member: Join, start_host: StartHost, announce: Announce
) -> None:
    one = await member()
    host = await start_host()
    other = await Directory.join(host, [PeerAddress(host.peer_id, await host.addresses())], alone=True)
    await one.directory.announce(own := announce(one.identity, MODEL))
    assert await other.nodes(MODEL) == []
    assert await other.meet([one.at])
    assert await other.nodes(MODEL) == [own]
    await other.close()


async def test_nobody_is_met_where_nobody_answers(member: Join, nobody: PeerAddress) -> None:
    one = await member()
    assert not await one.directory.meet([nobody, one.at])


def test_who_is_behind_relays_is_met_at_them() -> None:
    relay, direct, hidden = (Identity.generate() for _ in range(3))
    at = Address.parse("/ip4/192.0.2.1/tcp/31330")
    behind = replace(at, relay=relay.public)
    given = [PeerAddress(hidden.peer_id, (behind,)), PeerAddress(direct.peer_id, (behind, at))]
    assert meeting_points(given) == [PeerAddress(relay.peer_id, (at,)), PeerAddress(direct.peer_id, (at,))]
