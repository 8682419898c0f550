"""The one thread that writes to the log: takes all that waits, commits it at once, and only then answers.

There is no delay to fill a group: while one is committed, the next one waits, so groups grow with the load.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from nectar_ledger.core.machine import Machine, OpenMachine, Outcome
from nectar_ledger.errors import LedgerError, LostError, NotRecordedError, StoppedError
from nectar_ledger.store.database import Database
from nectar_ledger.store.inbox import Batch, Inbox
from nectar_ledger.store.writer import Writer

Command = TypeVar("Command")

MAX_BATCH_COMMANDS = 1000
# sysexits.h: a temporary failure, so that a supervisor starts the process again.
EX_TEMPFAIL = 75

logger = logging.getLogger(__name__)


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


def end_process() -> None:
    """At once: whoever has lost the log must not answer anybody any more."""
    os._exit(EX_TEMPFAIL)


class Sequencer(Generic[Command]):
    """Runs from the beginning until `close`. `halt` is called when it cannot go on, before anybody is told.

    Raises LockedError if there is another one, VersionError, DamagedError, StoreError.
    """

    def __init__(
        self,
        database: Database,
        tables: Sequence[sa.Table],
        open_machine: OpenMachine[Command],
        clock_ms: Callable[[], int] = unix_ms,
        halt: Callable[[], None] = end_process,
        patience_s: float = 5,
    ) -> None:
        self._writer = Writer(database, tables, open_machine, clock_ms, patience_s)
        self._inbox: Inbox[Command] = Inbox()
        self._halt = halt
        self._thread = Thread(target=self._run, name="sequencer", daemon=True)
        self._thread.start()

    @property
    def machine(self) -> Machine[Command]:
        """What commands are decided on. Other threads may look at it, and see what is not committed yet."""
        return self._writer.machine

    @property
    def durable_size(self) -> int:
        """Entries of the log below this index are committed."""
        return self._writer.durable_size

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def submit(self, commands: Sequence[Command]) -> "Future[list[Outcome]]":
        """What becomes of each command, once all of them are durable; NotRecordedError or StoppedError if they are not.

        Raises FullError, StoppedError, and LedgerError for more than 1,000 commands.
        """
        if len(commands) > MAX_BATCH_COMMANDS:
            raise LedgerError(f"{len(commands)} commands in a batch: send at most {MAX_BATCH_COMMANDS} together")
        batch = Batch(tuple(commands))
        self._inbox.put(batch)
        return batch.outcomes

    def close(self) -> None:
        """Record what waits, then let another process take over."""
        self._inbox.close()
        self._thread.join()

    def _run(self) -> None:
        group: list[Batch[Command]] | None = []
        try:
            while (group := self._inbox.take()) is not None:
                self._record(group)
        except Exception:
            logger.critical("the sequencer cannot go on", exc_info=True)
            self._halt()
            self._inbox.close()
            while group is not None:
                _fail(group, StoppedError("the ledger's sequencer has ended: send it again once the ledger is back"))
                group = self._inbox.take()
        finally:
            self._writer.close()

    def _record(self, group: Sequence[Batch[Command]]) -> None:
        """Commit a group; if something in it prevents that, each batch by itself. Raises when we cannot go on."""
        try:
            outcomes = self._writer.write([batch.commands for batch in group])
        except LostError:
            raise
        except Exception as error:
            if self._writer.lost:
                raise LostError("the connection that held the sequencer's lock has ended") from error
            self._writer.load()
            # Where the database itself fails, it would fail for each.
            if len(group) > 1 and not isinstance(error, OperationalError):
                for batch in group:
                    self._record([batch])
            else:
                logger.error("a batch could not be recorded", exc_info=error)
                _fail(group, NotRecordedError("the ledger could not record this, and nothing of it is: send it again"))
        else:
            for batch, results in zip(group, outcomes, strict=True):
                batch.outcomes.set_result(results)


def _fail(group: Sequence[Batch[Command]], error: LedgerError) -> None:
    for batch in group:
        if not batch.outcomes.done():
            batch.outcomes.set_exception(error)
