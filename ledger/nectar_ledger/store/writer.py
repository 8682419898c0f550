"""One group of batches as one transaction: decided, applied, appended to the log and written, or nothing of it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Generic, TypeVar

import sqlalchemy as sa

from nectar_ledger.core.machine import Answer, Key, Machine, OpenMachine, Outcome, Rejected
from nectar_ledger.errors import LostError
from nectar_ledger.store.changes import Changes
from nectar_ledger.store.database import Database
from nectar_ledger.store.edge import Edge
from nectar_ledger.store.reading import read_answers, read_head, read_rows, read_tile
from nectar_ledger.store.schema import commands, log_head
from nectar_ledger.store.versions import check_version

Command = TypeVar("Command")
CONFLICT = "conflict"


class Writer(Generic[Command]):
    """Holds the sequencer's lock from the beginning until `close`. For one thread at a time.

    `tables` are the machine's; entries below `durable_size` are committed. Raises LockedError, VersionError,
    DamagedError, StoreError.
    """

    def __init__(
        self,
        database: Database,
        tables: Sequence[sa.Table],
        open_machine: OpenMachine[Command],
        clock_ms: Callable[[], int],
        patience_s: float = 5,
    ) -> None:
        self._database, self._open_machine, self._clock_ms = database, open_machine, clock_ms
        self._tables = {table.name: table for table in (*tables, commands)}
        with ExitStack() as stack:
            self._connection = stack.enter_context(database.hold(patience_s))
            with self._connection.begin():
                check_version(self._connection)
            self.load()
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def load(self) -> None:
        """Forget what is in memory and read it again. Raises DamagedError."""
        connection = self._connection
        # A commit that failed may have left its transaction open; SQLAlchemy takes it for ended.
        connection.connection.rollback()
        with connection.begin():
            frontier, time_ms = read_head(connection)
            self.durable_size = frontier.size
            self._edge = Edge(frontier, time_ms, lambda tile: read_tile(connection, tile))
            self._machine = self._open_machine(
                lambda name: read_rows(connection, self._tables[name], live=True), frontier.size, time_ms
            )

    @property
    def machine(self) -> Machine[Command]:
        """As it is now: another one after each `load`."""
        return self._machine

    @property
    def lost(self) -> bool:
        """The connection has ended, and the lock with it; SQLAlchemy would silently open another one."""
        return self._connection.invalidated

    def write(self, batches: Sequence[Sequence[Command]]) -> list[list[Outcome]]:
        """What became of each command; it is durable. After any error nothing was written, and `load` must follow.

        Raises LostError if somebody else has written to the log.
        """
        if self.lost:
            raise LostError("the connection that held the sequencer's lock has ended")
        with self._connection.begin():
            now_ms = max(self._edge.time_ms, self._clock_ms())
            changes = Changes(self._tables, self._edge.size)
            keyed = [[(command, self._machine.key(command)) for command in batch] for batch in batches]
            known = self._known(key for batch in keyed for _, key in batch)
            outcomes = [[self._decide(*command, now_ms, known, changes) for command in batch] for batch in keyed]
            if changes.entries:
                changes.add_rows(self._machine.take_rows())
                self._append(changes, now_ms)
        self.durable_size = self._edge.size
        return outcomes

    def _known(self, keys: Iterable[Key | None]) -> dict[bytes, tuple[Key, Answer]]:
        """What was answered to those of them that are recorded."""
        ids = sorted({key.id for key in keys if key is not None})
        return read_answers(self._connection, ids)

    def _decide(
        self, command: Command, key: Key | None, now_ms: int, known: dict[bytes, tuple[Key, Answer]], changes: Changes
    ) -> Outcome:
        if key is not None and key.id in known:
            first, answer = known[key.id]
            return answer if first == key else Rejected(CONFLICT, "another command has this ID: choose a new one")
        decision = self._machine.decide(command, now_ms)
        if isinstance(decision, Rejected):
            return decision
        if not decision.drafts:
            return Answer(None, decision.response)
        answer = Answer(changes.size, decision.response)
        for draft in decision.drafts:
            self._machine.apply(changes.size, draft.entry, draft.sealed)
            changes.add_entry(draft)
        if key is not None:
            known[key.id] = key, answer
        return answer

    def _append(self, changes: Changes, now_ms: int) -> None:
        old_size = self._edge.size
        tiles = self._edge.append([entry for _, entry in changes.entries], now_ms)
        # The fence comes first: of two writers the second must learn that it has lost, and not of a duplicate row.
        moved = self._connection.execute(
            sa.update(log_head)
            .where(log_head.c.size == old_size)
            .values(size=self._edge.size, frontier=self._edge.frontier.pack(), time_ms=now_ms)
        )
        if moved.rowcount != 1:
            raise LostError("another process has written to this log")
        changes.add_tiles(tiles)
        changes.write(self._connection, self._database)
