"""Work beside the loop: its result, its error, and giving it up."""

import asyncio
import threading

import pytest
from nectar_node.background import in_thread


async def test_work_in_a_thread_gives_its_result_or_its_error() -> None:
    assert await in_thread(threading.current_thread) is not threading.current_thread()

    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await in_thread(fail)


async def test_work_in_a_thread_can_be_given_up() -> None:
    gate, ended = threading.Event(), threading.Event()

    def wait() -> None:
        gate.wait()
        ended.set()

    waiting = asyncio.ensure_future(in_thread(wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await asyncio.to_thread(ended.wait)
