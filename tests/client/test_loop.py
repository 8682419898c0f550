"""The network's loop runs in a thread of its own and serves those that may block."""

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest
from nectar.loop import LoopThread, new_event_loop


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    if not thread.loop.is_closed():
        thread.stop()


def test_results_and_errors_come_back_to_the_caller(thread: LoopThread) -> None:
    async def where() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise KeyError("lost")

    assert thread.run(where()) == "test"
    with pytest.raises(KeyError, match="lost"):
        thread.run(fail())


def test_a_function_is_called_in_the_loop(thread: LoopThread) -> None:
    called = threading.Event()
    names: list[str] = []

    def note(text: str) -> None:
        names.append(f"{text} {threading.current_thread().name}")
        called.set()

    thread.call(note, "in")
    called.wait()
    assert names == ["in test"]


def test_an_interrupt_of_the_caller_cancels_the_work(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt(future: object) -> None:
        started.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr("nectar.loop.Future.result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.run(wait())
    cancelled.wait()


def test_stopping_ends_the_thread_and_closes_the_loop(thread: LoopThread) -> None:
    thread.stop()
    assert thread.loop.is_closed()
    assert "test" not in {one.name for one in threading.enumerate()}


def test_without_uvloop_there_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert type(loop).__module__.startswith("asyncio")
    loop.close()
