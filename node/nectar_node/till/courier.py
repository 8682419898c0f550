"""The courier: takes receipts to the ledger, and asks until the log shows them for good.

It goes when there is something ripe: a final receipt, one of a line that has been quiet for a while, or of one that has
not been posted for long. A ledger that is down or busy is asked again, later and later; what it refuses is set aside.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.answers import ReceiptAnswer, ReceiptStatus
from nectar_ledger_client.errors import BusyError, LedgerClientError, NotYetError, RefusedError, UntrustedError
from nectar_ledger_client.log import AsyncLogFollower
from nectar_swarm.waiting import first_of

from nectar_node.till.spool import Kept, State
from nectar_node.till.till import Till

MAX_BATCH = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rounds:
    """When the courier goes, in seconds: between rounds; after the first of several final receipts; how long a line is
    quiet, or unposted at most, before it is posted; and how long it waits at most when the ledger is down.
    """

    every_s: float = 5.0
    gather_s: float = 1.0
    quiet_s: float = 30.0
    oldest_s: float = 300.0
    longest_s: float = 60.0

    def times(self, factor: float) -> "Rounds":
        """The same, so many times as fast."""
        return Rounds(*(seconds / factor for seconds in astuple(self)))


class Courier:
    """`path` is where the newest checkpoint of the log is kept."""

    def __init__(self, client: AsyncLedgerClient, till: Till, path: Path, rounds: Rounds | None = None) -> None:
        self._client, self._till, self._path, self._rounds = client, till, path, rounds or Rounds()
        self._follower: AsyncLogFollower | None = None

    async def run(self) -> None:
        """Until cancelled."""
        failures, wait_s = 0, 0.0
        while True:
            if failures:  # a ledger that is down is not asked sooner because there is more to tell it
                await asyncio.sleep(wait_s)
            else:
                await first_of(self._till.earned.wait(), timeout_s=wait_s)
                await asyncio.sleep(self._rounds.gather_s)  # one session seldom ends alone
            self._till.earned.clear()
            try:
                await self.round()
                failures, wait_s = 0, self._rounds.every_s
            except LedgerClientError as error:
                failures += 1
                wait_s = self._pause_s(failures, error)
                if failures == 1:
                    log.warning("%s; %d receipts wait", error, len(self._till.spool.of(State.KEPT)))
            except Exception:  # our own mistake must not cost what comes after it
                failures, wait_s = failures + 1, self._rounds.longest_s
                log.exception("a round to the ledger failed")

    def _pause_s(self, failures: int, error: LedgerClientError) -> float:
        longest_s = self._rounds.longest_s
        wait_s = random.uniform(0.5, 1.0) * min(2.0 ** min(failures - 1, 16), longest_s)
        return wait_s + min(error.retry_after_s, 10 * longest_s) if isinstance(error, BusyError) else wait_s

    async def round(self, everything: bool = False) -> None:
        """Post what is ripe, or everything, and prove what was posted. Raises LedgerClientError."""
        if self._till.facts.ledger is None:
            return
        ripe = [kept for kept in self._till.spool.of(State.KEPT) if everything or self._is_ripe(kept)]
        for start in range(0, len(ripe), MAX_BATCH):
            batch = ripe[start : start + MAX_BATCH]
            answers = await self._client.send_receipts(self._till.identity, [kept.receipt for kept in batch])
            await self._file(batch, answers)
        await self._prove()

    def _is_ripe(self, kept: Kept) -> bool:
        now_ms, rounds = self._till.now_ms(), self._rounds
        quiet = now_ms - kept.changed_ms >= rounds.quiet_s * 1000
        return kept.receipt.receipt.final or quiet or now_ms - kept.waiting_ms >= rounds.oldest_s * 1000

    async def _file(self, batch: Sequence[Kept], answers: Sequence[ReceiptAnswer]) -> None:
        """Note what became of a batch. Raises LedgerClientError."""
        spool = self._till.spool
        for kept, answer in zip(batch, answers, strict=True):
            match answer.status:
                case ReceiptStatus.SETTLED:
                    spool.mark(kept, State.POSTED, answer.index)
                case ReceiptStatus.SUPERSEDED:
                    entry = await self._entry_of(kept)
                    if entry is None:
                        self._set_aside(kept, "the ledger has had it, and does not show where")
                    else:
                        spool.mark(kept, State.POSTED, entry)
                case ReceiptStatus.REFUSED:
                    self._set_aside(kept, f"{answer.message} ({answer.code})")

    def _set_aside(self, kept: Kept, reason: str) -> None:
        log.warning("a receipt of %d units is set aside: %s", kept.receipt.receipt.units, reason)
        self._till.spool.mark(kept, State.REFUSED, reason=reason)

    async def _entry_of(self, kept: Kept) -> int | None:
        """Where the ledger has this receipt, or a newer one of its line."""
        try:
            hold = await self._client.hold(kept.hold)
        except RefusedError:
            return None
        mine = [line for line in hold.lines if line.node == self._till.identity.public and line.seq >= kept.seq]
        return mine[0].receipt_index if mine else None

    async def _prove(self) -> None:
        """Let go of what stands in the log for good. Raises LedgerClientError."""
        spool = self._till.spool
        posted = [(kept.entry, kept) for kept in spool.of(State.POSTED) if kept.entry is not None]
        for entry, kept in sorted(posted, key=lambda one: one[0]):
            try:
                await self._log().settled(kept.receipt, entry)
            except NotYetError:
                return  # nor are the later ones
            except UntrustedError as error:
                log.error("%s", error)
                spool.mark(kept, State.KEPT)
                raise
            spool.mark(kept, State.PROVED, entry)

    def _log(self) -> AsyncLogFollower:
        if self._follower is None:
            assert self._till.facts.ledger is not None, "whose receipts are posted is known"
            self._follower = AsyncLogFollower(self._client, self._till.facts.ledger.log, self._path)
        return self._follower
