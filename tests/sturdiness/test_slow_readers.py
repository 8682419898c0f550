"""Peers that read slowly or not at all: what waits for them is bounded, and they get it when they read again."""

import asyncio
import os
import signal

import pytest
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Routed, Step
from nectar_swarm.outbox import CROWDED

from tests.sturdiness.peers import Stranger, noise
from tests.sturdiness.witnesses import Honest, Memory

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKENS = 1024  # 1 MiB
PLACES = 400


async def test_who_reads_nothing_fills_no_memory_and_goes_on_when_it_reads(
    stranger: Stranger, honest: Honest, memory: Memory
) -> None:
    memory.limit_mib += 2 * CROWDED >> 20  # here, and on its way in p2pd
    session = await stranger.open(stranger.request(max_length=TOKENS + 1))
    await stranger.step(session, Step(1, 1, 0, noise(TOKENS)))
    stranger.link.heard = float("inf")  # we do not take the node for dead while we do not listen
    stranger.link._transport.pause_reading()
    for generation in range(2, PLACES):
        stranger.send(session, Neighbours(generation, None, None))  # each has the node send all of it again
        await asyncio.sleep(0.004)  # or the next place comes before it has begun
    honest.wait_for(5)
    stranger.link._transport.resume_reading()
    stranger.send(session, Neighbours(PLACES, None, None, sent=1))
    while await stranger.receive(session) != Routed(PLACES):
        pass
    stranger.send(session, Step(2, 2, TOKENS, noise(1)))
    while (answer := await stranger.receive(session)).last != 2:
        assert answer.last == 1
    assert not stranger.lost.is_set()


async def test_who_asks_and_never_reads_is_no_burden(stranger: Stranger, honest: Honest) -> None:
    stranger.link.heard = float("inf")
    stranger.link._transport.pause_reading()
    for _ in range(20_000):
        stranger.send(1, b"garbage" * 20, Kind.OPEN)
    honest.wait_for(5)
    stranger.link._transport.resume_reading()
    answers = [await stranger.receive(1) for _ in range(20_000)]
    assert all(isinstance(answer, Error) and answer.code is ErrorCode.MALFORMED for answer in answers)


async def test_who_falls_silent_loses_its_sessions(strangers: list[Stranger], other: Stranger, honest: Honest) -> None:
    silent = strangers[2]
    await silent.meet()
    for _ in range(5):
        await silent.open()
    os.kill(silent.host.daemon_pid, signal.SIGSTOP)
    try:
        await other.sessions(1)
        honest.wait_for(2)
    finally:
        os.kill(silent.host.daemon_pid, signal.SIGCONT)
    await silent.lost.wait()
    await silent.meet()
    await silent.step(await silent.open(), Step(1, 1, 0, noise(1)))
    await silent.part()
