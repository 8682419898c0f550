"""Who may come in: KV and history are reserved at full length when a session opens, so that none fails half-way.

When KV is short, sessions that nobody has used for a while lose theirs. They do not lose their history, from which
this node computes it again when they come back.
"""

from collections import Counter
from collections.abc import Callable, Collection

from nectar_protocol.identity import PeerID
from nectar_swarm.messages import Open

from nectar_node.archive import Archive, Record
from nectar_node.engine import Engine
from nectar_node.errors import FullError
from nectar_node.pipeline import Pipeline
from nectar_node.runner import KVStore
from nectar_node.scheduler import Work
from nectar_node.session import Session

MAX_SESSIONS, MAX_SESSIONS_PER_OWNER = 4096, 1024
EVICTABLE_S = 10.0  # unused for so long, a session's KV may be wanted for another


class Admission:
    """`sessions()` are those that are open; `expire(session)` ends one; `now_s()` is the loop's clock."""

    def __init__(
        self,
        store: KVStore,
        archive: Archive,
        engine: Engine | Pipeline,
        width: int,
        sessions: Callable[[], Collection[Session]],
        expire: Callable[[Session], None],
        now_s: Callable[[], float],
    ) -> None:
        self.store, self.archive = store, archive
        self._engine, self._width, self._sessions, self._now_s = engine, width, sessions, now_s
        self._expire = expire

    @property
    def kv_free(self) -> int:
        """Positions that a new session could have."""
        idle = sum(session.request.positions for session in self._sessions() if self._evictable(session))
        return self.store.kv_free + idle

    def admit(self, request: Open, owner: PeerID) -> tuple[object, Record]:
        """KV and a record for a new session. Raises FullError."""
        self._make_way_for(owner)
        one_way_bytes = request.positions * self._width * request.dtype.itemsize
        record = self._record(2 * one_way_bytes)  # what is received, and what is sent
        try:
            return self._reserve(request), record
        except FullError:
            record.close()
            raise

    def _make_way_for(self, owner: PeerID) -> None:
        """Make sure of a place among the sessions: whoever has most of them may lose one. Raises FullError."""
        owners = Counter(session.owner for session in self._sessions())
        if owners[owner] >= MAX_SESSIONS_PER_OWNER:
            raise FullError(f"{MAX_SESSIONS_PER_OWNER} sessions of yours are open")
        if owners.total() < MAX_SESSIONS:
            return
        [(most, count)] = owners.most_common(1)
        idle = [session for session in self._sessions() if session.owner == most and self._idle(session)]
        if count <= owners[owner] + 1 or not idle:
            raise FullError(f"{MAX_SESSIONS} sessions are open")
        self._expire(min(idle, key=lambda session: session.used_s))

    def _record(self, expected_bytes: int) -> Record:
        """Room in the history; sessions that have done nothing since they came make way. Raises FullError."""
        while (record := self.archive.open(expected_bytes)) is None:
            unused = [session for session in self._sessions() if not session.accepted and self._idle(session)]
            free_bytes = self.archive.free_bytes + sum(session.record.reserved_bytes for session in unused)
            if not unused or expected_bytes > free_bytes:
                raise FullError(f"this node's history has {free_bytes >> 20} MiB left, too little for this")
            self._expire(min(unused, key=lambda session: session.used_s))
        return record

    def restore(self, session: Session) -> None:
        """Compute an evicted session's KV again, ahead of its next step. Raises FullError."""
        session.kv = self._reserve(session.request)
        for part in session.received.whole():
            self._engine.submit(Work(session, session.kv, part.position, session.request.batch, part.tokens, part))

    def evict(self, session: Session) -> None:
        """Take a session's KV; it must have nothing to compute."""
        kv, session.kv = session.kv, None
        if kv is not None:
            self._engine.end(session, lambda: self.store.release(kv))

    def dismiss(self, session: Session) -> None:
        """A session has ended."""
        self.evict(session)
        session.record.close()

    def _reserve(self, request: Open) -> object:
        while (kv := self.store.reserve(request.start, request.stop, request.max_length, request.pads)) is None:
            idle = [session for session in self._sessions() if self._evictable(session)]
            if request.positions > self.kv_free or not idle:
                raise FullError(
                    f"{request.positions} positions of KV are wanted, {self.kv_free} of {self.store.kv_total} are free"
                )
            self.evict(min(idle, key=lambda session: session.used_s))
        return kv

    def _evictable(self, session: Session) -> bool:
        return session.kv is not None and self._idle(session)

    def _idle(self, session: Session) -> bool:
        return self._now_s() - session.used_s > EVICTABLE_S and not session.waiting
