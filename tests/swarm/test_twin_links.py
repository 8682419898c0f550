"""Two links to one peer, as after two dials at once: what the end or the silence of one means for the other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nectar_swarm import peers as peers_module
from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Ping
from nectar_swarm.peers import PROTOCOL

from tests.swarm.byhand import ByHand

Join = Callable[..., Awaitable[Any]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


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
