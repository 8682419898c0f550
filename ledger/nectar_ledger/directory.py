"""Who serves what, as nodes say it: the newest announcement of each node for each model, in memory, while it lives.

The second source beside the swarm's own directory. Claims that nobody pays for; only who made them is certain.
"""

from collections.abc import Callable, Iterable
from heapq import nsmallest
from threading import Lock

from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PublicKey

from nectar_ledger.errors import FullError

MAX_BOUND = 20_000
MAX_STRANGERS = 2_000
MAX_SKEW_MS = 30_000
SWEEP_MS = 10_000
RETRY_AFTER_S = 30.0

Place = tuple[bytes, PublicKey]  # model, node


class Shelf:
    """A bounded number of announcements."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[bytes, dict[PublicKey, Announcement]] = {}
        self.count = 0

    def get(self, model: bytes, node: PublicKey) -> Announcement | None:
        return self._kept.get(model, {}).get(node)

    def put(self, announcement: Announcement, now_ms: int) -> None:
        """Raises FullError."""
        if self.get(announcement.model, announcement.node) is None:
            if self.count >= self._most:
                self.sweep(now_ms)
            if self.count >= self._most:
                raise FullError(f"{self.count} nodes are listed already: announce it again later", RETRY_AFTER_S)
            self.count += 1
        self._kept.setdefault(announcement.model, {})[announcement.node] = announcement

    def remove(self, model: bytes, node: PublicKey) -> None:
        if self._kept.get(model, {}).pop(node, None) is not None:
            self.count -= 1

    def sweep(self, now_ms: int) -> None:
        """Forget what has expired."""
        for model, nodes in list(self._kept.items()):
            alive = {node: kept for node, kept in nodes.items() if kept.expires_ms > now_ms}
            self.count -= len(nodes) - len(alive)
            if alive:
                self._kept[model] = alive
            else:
                del self._kept[model]

    def of(self, model: bytes | None) -> Iterable[Announcement]:
        """In no order."""
        if model is not None:
            yield from self._kept.get(model, {}).values()
            return
        for nodes in self._kept.values():
            yield from nodes.values()


class Directory:
    """For any number of threads. Nodes that are bound to a payee have room that strangers cannot take."""

    def __init__(
        self, clock_ms: Callable[[], int], max_bound: int = MAX_BOUND, max_strangers: int = MAX_STRANGERS
    ) -> None:
        self._clock_ms = clock_ms
        self._bound, self._strangers = Shelf(max_bound), Shelf(max_strangers)
        self._lock = Lock()
        self._next_sweep_ms = 0

    @property
    def count(self) -> int:
        return self._bound.count + self._strangers.count

    def put(self, announcement: Announcement, is_bound: bool) -> None:
        """Keep it, unless a newer one of this node is known. Its signature has been verified.

        Raises MalformedError if it is from the future or has expired, FullError.
        """
        now_ms = self._clock_ms()
        if announcement.issued_ms > now_ms + MAX_SKEW_MS:
            raise MalformedError(f"the announcement is from the future; at the ledger it is {now_ms} ms")
        if announcement.expires_ms <= now_ms:
            raise MalformedError(f"the announcement has expired; at the ledger it is {now_ms} ms")
        model, node = announcement.model, announcement.node
        mine, other = (self._bound, self._strangers) if is_bound else (self._strangers, self._bound)
        with self._lock:
            known = mine.get(model, node) or other.get(model, node)
            if known is not None and known.issued_ms >= announcement.issued_ms:
                return
            mine.put(announcement, now_ms)
            other.remove(model, node)

    def page(self, model: bytes | None, after: Place | None, limit: int) -> list[Announcement]:
        """Of nodes that have not left, in the order of model and node. All models where `model` is None."""
        now_ms = self._clock_ms()
        with self._lock:
            kept = [*self._bound.of(model), *self._strangers.of(model)]
        alive = (
            announcement
            for announcement in kept
            if announcement.expires_ms > now_ms
            and announcement.state is not NodeState.LEAVING
            and (after is None or place(announcement) > after)
        )
        return nsmallest(limit, alive, key=place)

    def sweep(self) -> None:
        """Every ten seconds, forget what has expired."""
        now_ms = self._clock_ms()
        if now_ms < self._next_sweep_ms:
            return
        self._next_sweep_ms = now_ms + SWEEP_MS
        with self._lock:
            self._bound.sweep(now_ms)
            self._strangers.sweep(now_ms)


def place(announcement: Announcement) -> Place:
    """Where it stands in the directory's order."""
    return announcement.model, announcement.node
