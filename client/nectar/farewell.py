"""What still comes for a session that has ended, or goes on under another number: last bills, and histories."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from nectar_protocol.identity import PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.link import Link

from nectar.book import Book

LINGER_S = 2.0


class Heir(Protocol):
    """Who takes what still comes."""

    def on_message(self, number: int, link: Link, kind: Kind, payload: bytes) -> bool: ...


class Farewell:
    """A connection's listener in a session's place."""

    def __init__(self, number: int, heir: Heir, book: Book, present_link: Callable[[PeerID], Link | None]) -> None:
        self._number, self._heir, self._book, self._present_link = number, heir, book, present_link
        self._until_s = time.monotonic() + LINGER_S
        self._news = asyncio.Event()

    async def wait(self) -> None:
        """Until all that are still there have closed their lines, or have had the time to."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._until_s - time.monotonic())):
                while self._is_open:
                    self._news.clear()
                    await self._news.wait()

    @property
    def _is_open(self) -> bool:
        lines = self._book.of_number(self._number)
        return any(line.believed and not line.final and self._present_link(line.peer) for line in lines)

    def look(self) -> None:
        """Something was decided."""
        self._news.set()

    # Called by the connection

    def on_message(self, link: Link, kind: Kind, payload: bytes) -> None:
        self._heir.on_message(self._number, link, kind, payload)

    def on_dead(self, peer: PeerID, reason: str) -> None:
        self._news.set()

    def abandon(self) -> None: ...
