"""Time that passes only when nothing else is to do, for what takes hours."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next event; work for threads is done at once."""

    def __init__(self) -> None:
        self.now_s = 0.0
        selector = selectors.DefaultSelector()
        self._look = selector.select
        selector.select = self._jump  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s

    def _jump(self, timeout_s: float | None = None) -> Any:
        self.now_s += timeout_s or 0.0
        return self._look(0)

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        done = self.create_future()
        done.set_result(function(*arguments))
        return done
