"""Who may come in: KV and history are reserved at full length when a session opens, so that none fails half-way.

When KV is short, sessions that nobody has used for a while lose theirs, and for one that pays also those that do not
and have nothing to compute just now; never one that pays for one that does not. They do not lose their history, from
which this node computes it again when they come back. A full node says when it is worth while to ask again.
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
DOOR_S = 30.0  # of what nobody pays for, no more waits here
MIN_RETRY_S, MAX_RETRY_S = 1.0, 30.0


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
        """Positions that a new session could have which does not pay."""
        return self._room(0)

    def admit(self, request: Open, owner: PeerID, weight: int = 0) -> tuple[object, Record]:
        """KV and a record for a new session. Raises FullError."""
        if not weight and (wait_s := self._engine.free_wait_s) > DOOR_S:
            raise FullError(f"what nobody pays for waits {wait_s:.0f} s here", _bounded(wait_s - DOOR_S))
        self._make_way_for(owner, weight)
        one_way_bytes = request.positions * self._width * request.dtype.itemsize
        record = self._record(2 * one_way_bytes, weight)  # what is received, and what is sent
        try:
            return self._reserve(request, weight), record
        except FullError:
            record.close()
            raise

    def _make_way_for(self, owner: PeerID, weight: int) -> None:
        """Make sure of a place among the sessions. Whoever has most of them may lose one; for one that pays, else, any
        that does not. Raises FullError."""
        owners = Counter(session.owner for session in self._sessions())
        if owners[owner] >= MAX_SESSIONS_PER_OWNER:
            raise FullError(f"{MAX_SESSIONS_PER_OWNER} sessions of yours are open")
        if owners.total() < MAX_SESSIONS:
            return
        [(most, count)] = owners.most_common(1)
        idle = [session for session in self._sessions() if self._idle(session) and _yields(session, weight)]
        of_most = [session for session in idle if session.owner == most and count > owners[owner] + 1]
        idle = of_most or [session for session in idle if weight and not session.weight]
        if not idle:
            raise FullError(f"{MAX_SESSIONS} sessions are open")
        self._expire(min(idle, key=lambda session: session.used_s))

    def _record(self, expected_bytes: int, weight: int) -> Record:
        """Room in the history; sessions that have done nothing since they came make way. Raises FullError."""
        while (record := self.archive.open(expected_bytes)) is None:
            idle = [session for session in self._sessions() if self._idle(session) and _yields(session, weight)]
            unused = [session for session in idle if not session.accepted]
            free_bytes = self.archive.free_bytes + sum(session.record.reserved_bytes for session in unused)
            if not unused or expected_bytes > free_bytes:
                raise FullError(f"this node's history has {free_bytes >> 20} MiB left, too little for this")
            self._expire(min(unused, key=lambda session: session.used_s))
        return record

    def restore(self, session: Session) -> None:
        """Compute an evicted session's KV again, ahead of its next step. Raises FullError."""
        kv = session.kv = self._reserve(session.request, session.weight)
        batch, weight = session.request.batch, session.weight
        for part in session.received.whole():
            self._engine.submit(Work(session, kv, part.position, batch, part.tokens, part, weight=weight))

    def evict(self, session: Session) -> None:
        """Take a session's KV; it must have nothing to compute."""
        kv, session.kv = session.kv, None
        if kv is not None:
            self._engine.end(session, lambda: self.store.release(kv))

    def dismiss(self, session: Session) -> None:
        """A session has ended."""
        self.evict(session)
        session.record.close()

    def _reserve(self, request: Open, weight: int) -> object:
        while (kv := self.store.reserve(request.start, request.stop, request.max_length, request.pads)) is None:
            others = [session for session in self._sessions() if self._evictable(session, weight)]
            if request.positions > (room := self._room(weight)) or not others:
                wanted = f"{request.positions} positions of KV are wanted"
                raise FullError(
                    f"{wanted}, {room} of {self.store.kv_total} are free", self._room_after_s(request, weight)
                )
            self.evict(min(others, key=lambda session: (session.weight > 0, session.used_s)))
        return kv

    def _room(self, weight: int) -> int:
        """Positions that a session of this weight could have."""
        others = sum(session.request.positions for session in self._sessions() if self._evictable(session, weight))
        return self.store.kv_free + others

    def _room_after_s(self, request: Open, weight: int) -> float:
        """When those whose KV it may have will have been idle for long enough, if nobody uses or closes them before."""
        room = self.store.kv_free
        others = [session for session in self._sessions() if session.kv is not None and _yields(session, weight)]
        for session in sorted(others, key=lambda session: session.used_s):
            room += session.request.positions
            if room >= request.positions:
                return _bounded(session.used_s + EVICTABLE_S - self._now_s())
        return MAX_RETRY_S

    def _evictable(self, session: Session, weight: int) -> bool:
        """May its KV go to a session of this weight?"""
        if session.kv is None or session.waiting or not _yields(session, weight):
            return False
        return self._idle(session) or (weight > 0 and not session.weight)

    def _idle(self, session: Session) -> bool:
        return self._now_s() - session.used_s > EVICTABLE_S and not session.waiting


def _yields(session: Session, weight: int) -> bool:
    """Whoever pays never makes way for one that does not."""
    return weight > 0 or not session.weight


def _bounded(retry_after_s: float) -> float:
    return min(max(retry_after_s, MIN_RETRY_S), MAX_RETRY_S)
