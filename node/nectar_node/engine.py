"""One compute thread under the loop: it alone touches the model.

loop: `submit(work)`  ->  thread: `execute(work)`  ->  loop: `deliver(work, result or exception)`
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Work = TypeVar("Work")


class Engine(Generic[Work]):
    """Runs work in the order of its arrival. `busy_ms` is the age of the running piece, for heartbeats."""

    def __init__(
        self,
        execute: Callable[[Work], torch.Tensor],
        deliver: Callable[[Work, torch.Tensor | Exception], None],
    ) -> None:
        self._execute, self._deliver = execute, deliver
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Work] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._started: float | None = None
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> None:
        with self._changed:
            self._ready.append(work)
            self._changed.notify()

    @property
    def queued(self) -> int:
        return len(self._ready)

    def busy_ms(self) -> int:
        started = self._started
        return 0 if started is None else int((time.monotonic() - started) * 1000)

    def stop(self) -> None:
        """Let the running piece end and drop the rest."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _take(self) -> Work | None:
        with self._changed:
            while not self._ready and not self._stopped:
                self._changed.wait()
            return None if self._stopped else self._ready.popleft()

    def _run(self) -> None:
        while (work := self._take()) is not None:
            self._started = time.monotonic()
            try:
                result: torch.Tensor | Exception = self._execute(work)
            except Exception as error:  # whatever a model raises fails this step, never the node
                result = error
            self._started = None
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver, work, result)
