"""Peers that nobody can dial are reached through others, and nobody but them takes part in what is said."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from nectar_protocol.address import Address
from nectar_protocol.identity import Identity, parse_peer_id
from nectar_swarm import circuit
from nectar_swarm import relay as relay_module
from nectar_swarm.circuit import CALLED, RELAY, Answer, Request, ask
from nectar_swarm.errors import RelayRefusedError, UnreachableError
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.reachability import Verdict, find_out
from nectar_swarm.relay import GREETING, Relay, can_dial
from nectar_swarm.reservation import Reservations

StartHost = Callable[..., Awaitable[Host]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]
Join = Callable[..., Awaitable[Any]]
StartRelay = Callable[..., Awaitable[PeerAddress]]
Hide = Callable[..., Awaitable[Reservations]]


@pytest.fixture
async def start_relay(start_host: StartHost) -> StartRelay:
    """`await start_relay()` is a relay's address; the arguments are those of Relay."""

    async def start(host: Host | None = None, **arguments: Any) -> PeerAddress:
        host = host or await start_host()
        await Relay(host, **arguments).start()
        return PeerAddress(host.peer_id, await host.addresses())

    return start


@pytest.fixture
async def hide() -> AsyncIterator[Hide]:
    """`await hide(host, relays...)` are reservations of the host there."""
    kept: list[Reservations] = []

    async def start(host: Host, *relays: PeerAddress) -> Reservations:
        kept.append(Reservations(host, lambda: relays))
        await kept[-1].start()
        return kept[-1]

    yield start
    for reservations in kept:
        await reservations.close()


async def reserved(reservations: Reservations, eventually: Eventually, count: int = 1) -> None:
    await eventually(lambda: len(reservations.addresses) == count)


# Being reached


async def test_a_hidden_peers_addresses_are_its_relays(
    start_host: StartHost, start_relay: StartRelay, hide: Hide, eventually: Eventually
) -> None:
    relays = [await start_relay() for _ in range(3)]
    reservations = await hide(await start_host(), *relays)
    await reserved(reservations, eventually, 2)
    assert reservations.addresses == tuple(
        replace(relay.addresses[0], relay=parse_peer_id(relay.peer)) for relay in relays[:2]
    )


async def test_a_circuit_leads_to_the_p2pd_of_the_called_peer_and_ends_with_it(
    start_host: StartHost, start_relay: StartRelay, hide: Hide, eventually: Eventually
) -> None:
    relay, hidden, caller = await start_relay(), await start_host(), await start_host(listen=None)
    await reserved(await hide(hidden, relay), eventually)
    await caller.connect(relay.peer, relay.addresses)
    reader, writer = await ask(caller, relay.peer, Request.CONNECT, parse_peer_id(hidden.peer_id))
    writer.write(GREETING)
    assert await reader.readexactly(len(GREETING)) == GREETING
    os.kill(hidden.daemon_pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_a_lost_relay_is_replaced_and_that_is_told(
    start_host: StartHost, start_relay: StartRelay, hide: Hide, eventually: Eventually
) -> None:
    lost = await start_host()
    relays = [await start_relay(lost), await start_relay(), await start_relay()]
    reservations = await hide(await start_host(), *relays)
    await reserved(reservations, eventually, 2)
    reservations.changed.clear()
    await lost.close()
    wanted = {parse_peer_id(relay.peer) for relay in relays[1:]}
    await eventually(lambda: {address.relay for address in reservations.addresses} == wanted)
    assert reservations.changed.is_set()


async def test_a_relay_that_says_nothing_any_more_is_lost(
    start_host: StartHost,
    start_relay: StartRelay,
    hide: Hide,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuit, "BEAT_S", 0.1)
    monkeypatch.setattr(circuit, "SILENCE_S", 1.0)
    host = await start_host()
    reservations = await hide(await start_host(), await start_relay(host))
    await reserved(reservations, eventually)
    os.kill(host.daemon_pid, signal.SIGSTOP)
    await reserved(reservations, eventually, 0)


async def test_a_call_from_a_peer_that_is_not_our_relay_is_not_led_in(
    start_host: StartHost, start_relay: StartRelay, hide: Hide, eventually: Eventually
) -> None:
    relay, hidden, stranger = await start_relay(), await start_host(), await start_host()
    await reserved(await hide(hidden, relay), eventually)
    await stranger.connect(hidden.peer_id, await hidden.addresses())
    reader, writer = await stranger.open_stream(hidden.peer_id, CALLED)
    assert await reader.read() == b""
    writer.close()


# Calling


async def test_a_peer_is_called_through_each_of_its_relays_until_one_answers(
    join: Join, start_relay: StartRelay, hide: Hide, eventually: Eventually
) -> None:
    relay, idle, hidden, caller = await start_relay(), await start_relay(), await join(), await join()
    reservations = await hide(hidden.host, relay)
    await reserved(reservations, eventually)
    nobody = replace(idle.addresses[0], port=1, relay=Identity.generate().public)
    without = replace(idle.addresses[0], relay=parse_peer_id(idle.peer))
    link = await caller.peers.connect(hidden.id, [nobody, without, *reservations.addresses])
    link.send(1, Kind.STEP, payload := os.urandom(9 << 20))
    await eventually(lambda: hidden.handler.messages)
    assert hidden.handler.messages == [(caller.id, 1, Kind.STEP, payload)]


async def test_a_relay_calls_whom_it_relays_for_without_a_circuit(
    join: Join, start_relay: StartRelay, hide: Hide, eventually: Eventually
) -> None:
    party, hidden = await join(), await join()
    await reserved(reservations := await hide(hidden.host, await start_relay(party.host)), eventually)
    await party.peers.connect(hidden.id, reservations.addresses)
    await hidden.host.close()
    await eventually(lambda: party.handler.deaths)
    with pytest.raises(UnreachableError):
        await party.peers.connect(hidden.id, reservations.addresses)


# What a relay refuses


async def refusal(host: Host, relay: PeerAddress, kind: Request, body: bytes = b"") -> int:
    await host.connect(relay.peer, relay.addresses)
    with pytest.raises(RelayRefusedError) as raised:
        await ask(host, relay.peer, kind, body)
    return raised.value.answer


async def test_who_has_no_reservation_cannot_be_called(start_host: StartHost, start_relay: StartRelay) -> None:
    relay, caller, other = await start_relay(), await start_host(), await start_host()
    await other.connect(relay.peer, relay.addresses)
    assert await refusal(caller, relay, Request.CONNECT, parse_peer_id(other.peer_id)) == Answer.UNKNOWN


async def test_who_is_not_on_the_list_is_not_relayed(start_host: StartHost, start_relay: StartRelay) -> None:
    host = await start_host()
    assert await refusal(host, await start_relay(allowed=frozenset()), Request.RESERVE) == Answer.DENIED


async def test_a_relay_takes_no_more_than_it_can(
    start_host: StartHost,
    start_relay: StartRelay,
    hide: Hide,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "MAX_RESERVATIONS", 1)
    monkeypatch.setattr(relay_module, "MAX_CIRCUITS_PER_CALLER", 1)
    monkeypatch.setattr(relay_module, "MAX_PROBES", 0)
    relay, hidden, caller, other = await start_relay(), await start_host(), await start_host(), await start_host()
    await reserved(await hide(hidden, relay), eventually)
    assert await refusal(caller, relay, Request.RESERVE) == Answer.BUSY
    assert await refusal(caller, relay, Request.PROBE, b"\1\1") == Answer.BUSY
    wanted = parse_peer_id(hidden.peer_id)
    _, held = await ask(caller, relay.peer, Request.CONNECT, wanted)
    assert await refusal(caller, relay, Request.CONNECT, wanted) == Answer.BUSY
    await other.connect(relay.peer, relay.addresses)
    for host in (other, caller):  # a caller that has hung up may call again
        held.close()
        await eventually_answered(host, relay, wanted)


async def eventually_answered(host: Host, relay: PeerAddress, wanted: bytes) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                (await ask(host, relay.peer, Request.CONNECT, wanted))[1].close()
                return
            except RelayRefusedError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("request_bytes", [b"\0", b"\x63", b"\3short", b""], ids=repr)
async def test_a_request_that_is_none_ends_the_stream(
    start_host: StartHost, start_relay: StartRelay, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "DIAL_TIMEOUT_S", 0.5)
    relay, host = await start_relay(), await start_host()
    await host.connect(relay.peer, relay.addresses)
    reader, writer = await host.open_stream(relay.peer, RELAY)
    writer.write(request_bytes)
    assert await reader.read() == b""
    writer.close()


# Can others dial us?


async def test_a_port_where_we_listen_is_found_and_any_other_is_not(
    start_host: StartHost, start_relay: StartRelay
) -> None:
    relay, host = await start_relay(), await start_host()
    await host.connect(relay.peer, relay.addresses)
    [own] = await host.addresses()
    assert await find_out(host, [relay], own.port) == Verdict(False, own)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert await find_out(host, [relay], free.getsockname()[1]) == Verdict(True)


async def test_a_port_where_something_else_listens_does_not_count() -> None:
    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP ready\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    assert not await can_dial(Address.parse(f"/ip4/127.0.0.1/tcp/{server.sockets[0].getsockname()[1]}"))
    server.close()


async def test_peers_that_do_not_answer_say_nothing(start_host: StartHost) -> None:
    host, silent = await start_host(), await start_host()
    await host.connect(silent.peer_id, await silent.addresses())
    assert await find_out(host, [PeerAddress(silent.peer_id, await silent.addresses())], 1) is None
    assert await find_out(host, [], 1) is None
