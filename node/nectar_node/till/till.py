"""The till: what a node has earned and under which holds, as long as the node lives; sessions' accounts come and go.

Receipts are on disk within a second of being countersigned, final ones at once; the courier takes them to the ledger.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from nectar_protocol.announcement import Profile
from nectar_protocol.errors import MalformedError
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.money import settle
from nectar_protocol.receipt import SignedReceipt
from nectar_swarm.link import Link
from nectar_swarm.messages import Open
from nectar_swarm.payment import Payment
from nectar_swarm.waiting import first_of

from nectar_node.background import in_thread
from nectar_node.errors import PaymentError, TillError
from nectar_node.till.chronicle import Chronicles
from nectar_node.till.door import SKEW_MS, Door, Ticket
from nectar_node.till.facts import Facts
from nectar_node.till.spool import Spool

FLUSH_S = 1.0
PRUNE_S = 60.0
MAX_HOLDS = 16_384  # that are remembered
MAX_LAPSES = 2  # sessions of one hold that ended with something unsigned; more only
LOST_PART = 16  # while all that they left unsigned is no more than such a part of what was signed
WIRE_VERSION = 3  # from which on holds travel

log = logging.getLogger(__name__)


@dataclass
class Seen:
    """A hold that was shown here: its newest revision, how often its sessions ended with work left unsigned, and how
    many units that came to.
    """

    hold: SignedHold
    lapses: int = 0
    lost_units: int = 0


class Till:
    """Of one node that serves one model in one profile. Belongs to one loop.

    With an `owner`, holds are taken once the node's earnings go to that account; without, whoever's they go to. Without
    `serves_unmetered`, only sessions under a hold are let in.
    """

    def __init__(
        self,
        identity: Identity,
        model: bytes,
        profile: Profile,
        spool: Spool,
        owner: PublicKey | None = None,
        serves_unmetered: bool = True,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.identity, self.spool, self.owner, self.now_ms = identity, spool, owner, now_ms
        self.model, self.serves_unmetered = model, serves_unmetered
        self.facts = Facts.load(spool.facts, spool.save, model)
        self.wanted: set[bytes] = set()  # policies that holds have named and that are not known yet
        self.curious = asyncio.Event()  # something is wanted
        self.earned = asyncio.Event()  # something may be posted
        self.chronicles = Chronicles(identity.public, now_ms)
        self._door = Door(identity.public, model, profile, self.facts, self._want)
        self._seen: dict[bytes, Seen] = {}
        self._urgent = asyncio.Event()
        self._sound = True  # can the spool be written?

    @property
    def ledger(self) -> bytes:
        """The one whose holds are taken now; b"" for none."""
        facts = self.facts
        bound = facts.payee is not None and self.owner in (None, facts.payee)
        ready = bound and facts.ledger is not None and facts.model is not None and self._sound
        return facts.ledger.ledger if ready and facts.ledger is not None else b""

    # Holds

    def check(self, payment: Payment, request: Open, link: Link, number: int) -> Ticket:
        """Leave to open a session under this hold. Raises PaymentError."""
        if not self.ledger:
            raise PaymentError("this node takes no holds now")
        if link.version < WIRE_VERSION:
            raise PaymentError(f"holds are taken from version {WIRE_VERSION} of the wire on")
        id = payment.hold.hold.id
        seen, kept = self._seen.get(id), self.spool.lines.get(id)
        signed_units = 0 if kept is None else kept.receipt.receipt.units
        if seen is not None and seen.lapses >= MAX_LAPSES and seen.lost_units * LOST_PART > signed_units:
            raise PaymentError(f"{seen.lapses} sessions of this hold ended with work left unsigned: open another hold")
        ticket = self._door.check(
            payment,
            request,
            link.peer,
            number,
            self.now_ms(),
            None if seen is None else seen.hold,
            None if kept is None else kept.receipt,
        )
        self._remember(ticket.hold)
        receipt = ticket.line.receipt
        if receipt is not None:
            self.keep(ticket.hold, receipt)  # it may be newer than what was kept here
        return ticket

    def revise(self, known: SignedHold, shown: SignedHold) -> SignedHold:
        """The newer one of two revisions. Raises PaymentError."""
        if shown.hold.id != known.hold.id:
            raise PaymentError("this is another hold than the session's")
        seen = self._seen.get(known.hold.id)
        newest = self._door.revised(seen.hold if seen else known, shown)
        self._remember(newest)
        self.spool.extend(newest.hold.id, self._until_ms(newest))
        return newest

    def has_expired(self, hold: SignedHold) -> bool:
        return self.now_ms() > hold.hold.expires_ms + SKEW_MS

    def lapsed(self, hold: SignedHold, units: int) -> None:
        """A session has ended and left so much unsigned."""
        if (seen := self._seen.get(hold.hold.id)) is not None:
            seen.lapses += 1
            seen.lost_units += units

    def _remember(self, hold: SignedHold) -> None:
        seen = self._seen.pop(hold.hold.id, None) or Seen(hold)
        seen.hold = hold
        self._seen[hold.hold.id] = seen
        if len(self._seen) > MAX_HOLDS:
            del self._seen[next(iter(self._seen))]

    def _until_ms(self, hold: SignedHold) -> int:
        """When the hold's grace is over, as long as the ledger is up."""
        policy = self.facts.policies.get(hold.hold.policy)
        return hold.hold.expires_ms + (policy.grace_ms if policy else 0)

    def _want(self, policy: bytes) -> None:
        self.wanted.add(policy)
        self.curious.set()

    # Receipts

    def keep(self, hold: SignedHold, signed: SignedReceipt) -> None:
        """Keep a receipt that both have signed: on disk within a second, a final one at once."""
        self.spool.put(signed, self._until_ms(hold), self._paid_ucr(hold, signed), self.now_ms())
        if signed.receipt.final:
            self._urgent.set()
            self.earned.set()

    def _paid_ucr(self, hold: SignedHold, signed: SignedReceipt) -> int:
        policy = self.facts.policies.get(hold.hold.policy)
        if policy is None:
            return 0
        with suppress(MalformedError):  # more than there can be: the ledger will say so
            return settle(0, signed.receipt.units, hold.hold.weight, policy.price, policy.fee_ppm).paid_ucr
        return 0

    async def run(self) -> None:
        """Keep the file up to date, until cancelled."""
        pruned_s = time.monotonic()
        while True:
            await first_of(self._urgent.wait(), timeout_s=FLUSH_S)
            self._urgent.clear()
            if time.monotonic() - pruned_s > PRUNE_S:
                pruned_s = time.monotonic()
                self._prune()
            if not self.spool.is_flushed:
                await self._flush()

    async def _flush(self) -> None:
        try:
            await in_thread(self.spool.flush)
        except TillError as error:
            if self._sound:
                log.error("no holds are taken until this works again: %s", error)
            self._sound = False
        else:
            self._sound = True

    def _prune(self) -> None:
        now_ms = self.now_ms()
        self.spool.prune(now_ms)
        for id, seen in list(self._seen.items()):
            if now_ms > self._until_ms(seen.hold) + SKEW_MS:
                del self._seen[id]

    async def close(self) -> None:
        """Write what is left."""
        self.chronicles.close()
        try:
            await in_thread(self.spool.close)
        except TillError as error:
            log.error("%s", error)
