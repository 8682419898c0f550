"""What the links of one process hold in memory for peers that are slow: bounded for each link, and for all together."""

from typing import Protocol

from nectar_swarm.errors import UnreachableError

MAX_BACKLOG = 256 << 20
MAX_TOTAL_BACKLOG = 1 << 30


class Holder(Protocol):
    """A link, as the backlog sees it."""

    @property
    def backlog_bytes(self) -> int: ...

    def abort(self, error: Exception) -> None: ...


class Backlog:
    """A link that holds too much is aborted; so is the one that holds most, when all together hold too much."""

    def __init__(self) -> None:
        self._bytes: dict[Holder, int] = {}  # as they were when they were last weighed
        self._total_bytes = 0

    def weigh(self, link: Holder) -> None:
        """Count a link that holds more than before, or has ended. May abort it, or another."""
        before, now = self._bytes.pop(link, 0), link.backlog_bytes
        if now:
            self._bytes[link] = now
        self._total_bytes += now - before
        if now > MAX_BACKLOG:
            link.abort(UnreachableError(f"{now >> 20} MiB wait on it: its peer reads nothing, or finishes nothing"))
        elif self._total_bytes > MAX_TOTAL_BACKLOG:
            self._relieve()

    def _relieve(self) -> None:
        for link in list(self._bytes):  # much of it may have left since
            self._bytes[link] = link.backlog_bytes
        self._total_bytes = sum(self._bytes.values())
        if self._total_bytes > MAX_TOTAL_BACKLOG:
            worst = max(self._bytes, key=self._bytes.__getitem__)
            text = f"{self._total_bytes >> 20} MiB wait on all links, and on none more than on this one"
            worst.abort(UnreachableError(text))
