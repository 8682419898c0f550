"""Where batches wait for the sequencer: a bounded number of them, first come, first served."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition
from typing import Generic, TypeVar

from nectar_ledger.core.machine import Outcome
from nectar_ledger.errors import FullError, StoppedError

Command = TypeVar("Command")

MAX_WAITING_BATCHES = 64
MAX_GROUP_COMMANDS = 4000
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, eq=False)
class Batch(Generic[Command]):
    """Commands that are recorded together, and the promise of what became of each."""

    commands: Sequence[Command]
    outcomes: "Future[list[Outcome]]" = field(default_factory=Future)


class Inbox(Generic[Command]):
    def __init__(self) -> None:
        self._waiting: deque[Batch[Command]] = deque()
        self._changed = Condition()
        self._closed = False

    def put(self, batch: Batch[Command]) -> None:
        """Raises FullError or StoppedError."""
        with self._changed:
            if self._closed:
                raise StoppedError("the ledger's sequencer has ended: send it again once the ledger is back")
            if len(self._waiting) >= MAX_WAITING_BATCHES:
                message = f"{len(self._waiting)} batches wait already: send it again in {RETRY_AFTER_S:g} s"
                raise FullError(message, RETRY_AFTER_S)
            self._waiting.append(batch)
            self._changed.notify()

    def take(self) -> list[Batch[Command]] | None:
        """Wait for batches, and take what waits until it has 4,000 commands. Cancelled ones are left out; a taken one
        cannot be cancelled any more. None once the inbox is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            group: list[Batch[Command]] = []
            count = 0
            while self._waiting and count < MAX_GROUP_COMMANDS:
                batch = self._waiting.popleft()
                if batch.outcomes.set_running_or_notify_cancel():
                    group.append(batch)
                    count += len(batch.commands)
            return group

    def close(self) -> None:
        """Take nothing more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
