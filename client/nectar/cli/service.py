"""Running a service until a signal says to leave."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from nectar.cli.output import say


def serve(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *, until_eof: bool = False) -> None:
    """Run `run(stop)`; the first Ctrl-C or SIGTERM sets `stop`, the second ends the process at once.

    With `until_eof` the end of standard input ends it at once too: whoever started it is gone.
    """
    from nectar.loop import new_event_loop

    async def main() -> None:
        stop = asyncio.Event()

        def leave() -> None:
            if stop.is_set():
                os._exit(130)  # p2pd follows its parent
            say("leaving; once more to leave at once")
            stop.set()

        if until_eof:
            threading.Thread(target=_exit_at_eof, daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, leave)
        await run(stop)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def _exit_at_eof() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)
