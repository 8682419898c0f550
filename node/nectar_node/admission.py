"""Who may come in: KV and history are reserved at full length when a session opens, so that none fails half-way.

When KV is short, sessions that nobody has used for a while lose theirs. They do not lose their history, from which
this node computes it again when they come back.
"""

from collections.abc import Callable, Iterable

from nectar_swarm.messages import Open

from nectar_node.archive import Archive, Record
from nectar_node.engine import Engine
from nectar_node.errors import FullError
from nectar_node.runner import Runner
from nectar_node.scheduler import Work
from nectar_node.session import Session

EVICTABLE_S = 10.0  # unused for so long, a session's KV may be wanted for another


class Admission:
    """`sessions()` are those that are open; `now_s()` is the loop's clock."""

    def __init__(
        self,
        runner: Runner,
        archive: Archive,
        engine: Engine,
        width: int,
        sessions: Callable[[], Iterable[Session]],
        now_s: Callable[[], float],
    ) -> None:
        self.runner, self.archive = runner, archive
        self._engine, self._width, self._sessions, self._now_s = engine, width, sessions, now_s

    @property
    def kv_free(self) -> int:
        """Positions that a new session could have."""
        idle = sum(session.request.positions for session in self._sessions() if self._evictable(session))
        return self.runner.kv_free + idle

    def admit(self, request: Open) -> tuple[object, Record]:
        """KV and a record for a new session. Raises FullError."""
        one_way_bytes = request.positions * self._width * request.dtype.itemsize
        record = self.archive.open(2 * one_way_bytes)  # what is received, and what is sent
        if record is None:
            raise FullError(f"this node's history has {self.archive.free_bytes >> 20} MiB left, too little for this")
        try:
            return self._reserve(request), record
        except FullError:
            record.close()
            raise

    def restore(self, session: Session) -> None:
        """Compute an evicted session's KV again, ahead of its next step. Raises FullError."""
        session.kv = self._reserve(session.request)
        for part in session.received.whole():
            self._engine.submit(Work(session, session.kv, part.position, session.request.batch, part.tokens, part))

    def evict(self, session: Session) -> None:
        """Take a session's KV; it must have nothing to compute."""
        kv, session.kv = session.kv, None
        if kv is not None:
            self._engine.end(session, lambda: self.runner.release(kv))

    def dismiss(self, session: Session) -> None:
        """A session has ended."""
        self.evict(session)
        session.record.close()

    def _reserve(self, request: Open) -> object:
        while (kv := self.runner.reserve(request.start, request.stop, request.max_length, request.pads)) is None:
            idle = [session for session in self._sessions() if self._evictable(session)]
            if request.positions > self.kv_free or not idle:
                raise FullError(
                    f"{request.positions} positions of KV are wanted, {self.kv_free} of {self.runner.kv_total} are free"
                )
            self.evict(min(idle, key=lambda session: session.used_s))
        return kv

    def _evictable(self, session: Session) -> bool:
        idle = self._now_s() - session.used_s > EVICTABLE_S
        return idle and session.kv is not None and not session.waiting
