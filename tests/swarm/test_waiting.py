"""Waiting for whichever of several things comes first."""

import asyncio

from nectar_swarm.waiting import first_of


async def test_the_first_of_several_ends_the_wait_and_the_others_are_cancelled() -> None:
    never, now = asyncio.Event(), asyncio.Event()
    kept = asyncio.ensure_future(never.wait())
    now.set()
    await first_of(kept, never.wait(), now.wait())
    assert not kept.done()
    await first_of(kept, timeout_s=0.0)
    assert not kept.done()
    kept.cancel()
