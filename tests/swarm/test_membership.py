"""A member comes back whatever happens to its p2pd, and is reached through relays where nobody can dial it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement
from nectar_protocol.identity import Identity, parse_peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm import membership as membership_module
from nectar_swarm.directory import Directory
from nectar_swarm.errors import UnreachableError
from nectar_swarm.host import Host, Listen
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.membership import MAX_KNOWN, Membership, Place
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.reachability import Reachability
from nectar_swarm.relay import Relay
from nectar_swarm.waiting import first_of

Announce = Callable[..., Announcement]
StartHost = Callable[..., Awaitable[Host]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]

MODEL = ModelID(b"m" * 32)
AT = Address.parse("/ip4/192.0.2.1/tcp/31330")


class Member:
    """A membership that runs, and the places it has had."""

    def __init__(self, key_file: Path, *peers: PeerAddress, reachability: Reachability = Reachability.AUTO) -> None:
        self.identity = load_or_create_key(key_file)
        self.places: list[Place] = []
        self.membership = Membership(key_file, Listen("127.0.0.1"), peers, reachability=reachability)
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.membership.run(self.stop, self.attend))

    async def attend(self, place: Place) -> None:
        self.places.append(place)
        self.membership.settled = True
        await first_of(self.stop.wait(), place.host.ended.wait())


StartMember = Callable[..., Member]


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartMember]:
    monkeypatch.setattr(membership_module, "RESTART_S", 0.05)
    members: list[Member] = []

    def start(*peers: PeerAddress, reachability: Reachability = Reachability.AUTO) -> Member:
        members.append(Member(tmp_path / f"{len(members)}.key", *peers, reachability=reachability))
        return members[-1]

    yield start
    for member in members:
        member.stop.set()
        with suppress(UnreachableError):
            await member.task


@pytest.fixture
async def relay(start_host: StartHost) -> AsyncIterator[PeerAddress]:
    """A peer that keeps the directory and relays."""
    host = await start_host()
    directory = await Directory.join(host, [])
    await Relay(host).start()
    yield PeerAddress(host.peer_id, await host.addresses())
    await directory.close()


def through(relay: PeerAddress) -> Address:
    return replace(relay.addresses[0], relay=parse_peer_id(relay.peer))


async def test_who_can_be_dialled_says_where_and_relays_for_others(
    start: StartMember, relay: PeerAddress, eventually: Eventually
) -> None:
    public = start(relay)
    await eventually(lambda: public.places)
    [address] = await public.places[0].addresses()
    assert address.relay is None
    hidden = start(PeerAddress(public.identity.peer_id, (address,)), reachability=Reachability.PRIVATE)
    await eventually(lambda: hidden.places)
    assert await hidden.places[0].addresses() == (replace(address, relay=public.identity.public),)


async def test_a_hidden_member_is_in_the_directory_and_keeps_its_relay_over_a_restart(
    start: StartMember, relay: PeerAddress, start_host: StartHost, announce: Announce, eventually: Eventually
) -> None:
    hidden = start(relay, reachability=Reachability.PRIVATE)
    await eventually(lambda: hidden.places)
    os.kill(hidden.places[0].host.daemon_pid, signal.SIGKILL)
    await eventually(lambda: len(hidden.places) == 2)
    place = hidden.places[1]
    assert await place.addresses() == (through(relay),)
    own = announce(hidden.identity, MODEL, addresses=await place.addresses())
    assert await place.directory.announce(own)
    reading = await Directory.join(await start_host(listen=None), [relay], reader=True)
    assert await reading.nodes(MODEL) == [own]
    await reading.close()


async def test_the_address_of_a_hidden_member_leads_into_the_swarm(
    start: StartMember, relay: PeerAddress, start_host: StartHost, eventually: Eventually
) -> None:
    hidden = start(relay, reachability=Reachability.PRIVATE)
    await eventually(lambda: hidden.places)
    given = PeerAddress.parse(f"{through(relay)}/p2p/{hidden.identity.peer_id}")
    directory = await Directory.join(await start_host(listen=None), [given], reader=True)
    assert await directory.meet([given])
    await directory.close()


async def test_a_hidden_member_that_nobody_relays_for_is_told_what_to_do(
    start: StartMember, start_host: StartHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership_module, "RESERVED_S", 0.5)
    host = await start_host()
    directory = await Directory.join(host, [])
    member = start(PeerAddress(host.peer_id, await host.addresses()), reachability=Reachability.PRIVATE)
    with pytest.raises(UnreachableError, match="open its port, or run `nectar bootstrap`"):
        await member.task
    await directory.close()


def test_a_member_remembers_whom_it_can_dial_initial_peers_first(tmp_path: Path) -> None:
    initial, met, hidden = (PeerAddress(Identity.generate().peer_id, (replace(AT, port=port),)) for port in (1, 2, 3))
    hidden = PeerAddress(hidden.peer, (replace(AT, relay=parse_peer_id(met.peer)),))
    membership = Membership(tmp_path / "key", Listen(), [initial])
    membership.remember([hidden, met, PeerAddress(initial.peer, (AT,))])
    assert membership.peers == (initial, met)
    moved = PeerAddress(met.peer, (AT,))
    membership.remember([moved])
    assert membership.peers == (initial, moved)


def test_thousands_of_false_nodes_push_no_initial_peer_out(tmp_path: Path) -> None:
    initial = tuple(PeerAddress(Identity.generate().peer_id, (AT,)) for _ in range(2))
    membership = Membership(tmp_path / "key", Listen(), initial)
    for _ in range(3):
        membership.remember(PeerAddress(Identity.generate().peer_id, (AT,)) for _ in range(2 * MAX_KNOWN))
        assert len(membership.peers) == MAX_KNOWN
        assert membership.peers[:2] == initial
        some = membership.some(8)
        assert len(some) == 8
        assert set(initial) < set(some)
