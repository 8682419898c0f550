"""A ledger that runs: its sequencer, its signer, and the heart that does what time brings.

Everything that an API needs of a ledger is here, and nothing of HTTP. Signatures are verified by who submits.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Thread

from nectar_protocol.note import Note

from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.machine import Answer, Outcome, Rejected
from nectar_ledger.core.orders import Order, Resume, Tick
from nectar_ledger.core.state import State
from nectar_ledger.directory import Directory
from nectar_ledger.errors import ForkError, FullError, LedgerError, NotRecordedError, StoppedError
from nectar_ledger.evidence import Evidence
from nectar_ledger.log.reader import LogReader
from nectar_ledger.log.signer import Signer
from nectar_ledger.store.database import Database
from nectar_ledger.store.sequencer import Sequencer, unix_ms

BEAT_S = 1.0
# So many beats in a row without a sign of life, and the ledger is not ready.
MISSED_BEATS = 10

logger = logging.getLogger(__name__)


class Service:
    """Runs from the beginning until `close`. Takes over the sequencer, and closes it.

    `evidence` is the folder for what verdicts were made from. Raises LedgerError for a log without a genesis,
    ForkError, StoreError; the sequencer is then closed.
    """

    def __init__(
        self,
        database: Database,
        sequencer: Sequencer[Order],
        signer: Signer,
        evidence: Path,
        clock_ms: Callable[[], int] = unix_ms,
        beat_s: float = BEAT_S,
    ) -> None:
        self.database, self.signer, self.clock_ms = database, signer, clock_ms
        self.log = LogReader(database)
        self._sequencer, self._beat_s = sequencer, beat_s
        self._watchers: list[Callable[[], None]] = []
        self._stopping = Event()
        self._last_beat_s = time.monotonic()
        self._fault: str | None = None
        try:
            (outcome,) = self.submit([Resume()]).result()
            if isinstance(outcome, Rejected):
                raise LedgerError(outcome.message)
            self.ledger_id = self.state.ledger.id
            self.directory = Directory(clock_ms)
            self.evidence = Evidence(evidence, clock_ms)
            signer.sign()
        except BaseException:
            sequencer.close()
            raise
        self._heart = Thread(target=self._run, name="heart", daemon=True)
        self._heart.start()

    @property
    def state(self) -> State:
        """The core's state as it is now, for look-ups from any thread. It may be ahead of what is committed."""
        ledger = self._sequencer.machine
        assert isinstance(ledger, Ledger)
        return ledger.state

    @property
    def durable_size(self) -> int:
        """Entries of the log below this index are committed."""
        return self._sequencer.durable_size

    @property
    def checkpoint(self) -> Note | None:
        """What was published last."""
        return self.signer.last

    @property
    def fault(self) -> str | None:
        """Why the ledger is not ready, for people; None if it is."""
        if not self._sequencer.is_running:
            return "the sequencer has ended"
        if self._fault is None and time.monotonic() - self._last_beat_s > MISSED_BEATS * max(self._beat_s, BEAT_S):
            return "nothing has been recorded for a while"
        return self._fault

    def submit(self, orders: Sequence[Order]) -> "Future[list[Outcome]]":
        """As `Sequencer.submit`: what becomes of each order, once all of them are durable."""
        future = self._sequencer.submit(orders)
        future.add_done_callback(self._tell)
        return future

    def watch(self, recorded: Callable[[], None]) -> None:
        """Have `recorded` called, in some thread and without delay, whenever the log may have grown."""
        self._watchers.append(recorded)

    def unwatch(self, recorded: Callable[[], None]) -> None:
        self._watchers.remove(recorded)

    def close(self) -> None:
        """Record and sign what was accepted, then let another process take over."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._heart.join()
        try:
            # Behind all that was accepted; only who holds the sequencer's lock may sign.
            self.submit([]).result()
            self._sign()
        except LedgerError as error:
            logger.error("the last checkpoint is not signed, the next start does: %s", error)
        finally:
            self._sequencer.close()

    def _tell(self, future: "Future[list[Outcome]]") -> None:
        for recorded in list(self._watchers):
            recorded()

    def _run(self) -> None:
        while not self._stopping.wait(self._beat_s):
            try:
                self._tick()
                self._sign()
                self.evidence.sweep(self.state.rules.evidence_ms)
                self.directory.sweep()
            except StoppedError:
                return
            except (FullError, NotRecordedError):
                continue
            except Exception:
                logger.exception("a beat of the ledger's heart failed; the next one comes")
                continue
            self._last_beat_s = time.monotonic()

    def _tick(self) -> None:
        """Do what is due, all of it."""
        while not self._stopping.is_set():
            (outcome,) = self.submit([Tick()]).result()
            if not isinstance(outcome, Answer) or outcome.index is None:
                return

    def _sign(self) -> None:
        """Sign a checkpoint if the log has grown. After a fork nothing is signed until somebody has looked at it."""
        if self._fault is not None:
            return
        try:
            self.signer.sign()
        except ForkError as error:
            logger.critical("%s", error)
            self._fault = str(error)
        except LedgerError as error:
            logger.error("%s", error)
