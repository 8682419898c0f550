"""One node's line of a session: what it has billed so far, and what it may bill next. No I/O."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.errors import MalformedError, SignatureError
from nectar_protocol.identity import PeerID
from nectar_protocol.metering import Meter
from nectar_protocol.receipt import Receipt, SignedReceipt, Work
from nectar_protocol.tally import Tally, Terms, grown
from nectar_swarm.bills import Bill, BilledStep

from nectar.trail import Passed, Trail, joined

Order = tuple[int, ...]


class WrongBillError(Exception):
    """A bill that nobody signs; the message says why."""


@dataclass
class Asked:
    """A step that the session asked for, [rows, positions] at `position`; `answered` once its output has come."""

    rows: int
    position: int
    positions: int
    reorder: Order = ()
    answered: bool = False

    @property
    def end(self) -> int:
        return self.position + self.positions


def plain_order(reorder: Order, rows: int, position: int) -> Order:
    """None for one that moves nothing: the identity, and any where nothing is past."""
    return () if not position or reorder == tuple(range(rows)) else reorder


class Took(NamedTuple):
    """A step that a node has billed as taken in: what its history must show."""

    first: int
    last: int
    position: int
    positions: int
    reorder: Order
    inputs: bytes  # SHA-256 of their digests


@dataclass(frozen=True)
class Pending:
    """A bill that is right in itself and waits for what the neighbours say. `newest` is the step asked when it came."""

    bill: Bill
    tally: Tally
    reach: int
    resumed: int | None
    newest: int


@dataclass(eq=False)
class Source:
    """Whoever passes steps on. `speaks`: it says, or will say, what it passed on."""

    trail: Trail = field(default_factory=Trail)
    speaks: bool = True


@dataclass(eq=False)
class Line(Source):
    """From an OPEN of session `number` under a hold to its end.

    `cap_units` is None while the hold has no line for the node. Replays reach up to step `replayable`, and come merged
    up to `settled`; `resumed` is where the last merged one ended. `sources` are its predecessors, each with the last
    step that it can have sent. `believed`: nothing was found in its bills that is not so.
    """

    peer: PeerID = field(kw_only=True)
    number: int = field(kw_only=True)
    meter: Meter = field(kw_only=True)
    tally: Tally = field(kw_only=True)
    cap_units: int | None = None
    billed: int = 0
    reach: int = 0
    replayable: int = 0
    settled: int = 0
    resumed: int | None = None
    sources: list[tuple[Source, int | None]] = field(default_factory=list)
    disputes: int = 0
    believed: bool = True
    receipt: SignedReceipt | None = None
    final: bool = False
    pending: Pending | None = None
    took: list[Took] = field(default_factory=list)

    @property
    def terms(self) -> Terms:
        return self.tally.terms

    @property
    def units(self) -> int:
        """Of the last receipt that both have signed."""
        return 0 if self.receipt is None else self.receipt.receipt.units

    @property
    def opens(self) -> bool:
        """Has nothing been signed yet that covers what this opening has reserved?"""
        signed = None if self.receipt is None else self.receipt.receipt.work
        return signed is None or signed.reserved_tokens < self.tally.work.reserved_tokens

    def examine(self, bill: Bill, asked: Mapping[int, Asked], newest: int) -> Pending:
        """What can be told of a bill without the neighbours, when step `newest` has been asked for. Raises
        WrongBillError.
        """
        if self.final:
            raise WrongBillError("bills a line that it has closed itself")
        if self.pending is not None:
            raise WrongBillError("sent a bill before the one before it was answered")
        if not bill.steps and not bill.receipt.final and not self.opens:
            raise WrongBillError("bills nothing")
        walk = _Walk(self, asked)
        try:
            for step in bill.steps:
                walk.take(step)
            due = walk.tally.receipt(self.meter, bill.receipt.final)
        except MalformedError as error:
            raise WrongBillError(f"bills what no receipt holds: {error}") from error
        _compare(due, bill.receipt)
        try:
            bill.receipt.verify_server(bill.signature)
        except SignatureError as error:
            raise WrongBillError("did not sign its bill") from error
        return Pending(bill, walk.tally, walk.reach, walk.resumed, newest)

    def commit(self, pending: Pending, signature: bytes) -> SignedReceipt:
        """Take the bill in; `signature` is the session's."""
        bill = pending.bill
        self.receipt = SignedReceipt(bill.receipt, bill.signature, signature)
        self.tally, self.reach, self.resumed = pending.tally.signed(), pending.reach, pending.resumed
        self.final, self.pending = bill.receipt.final, None
        for step in bill.steps:
            header = step.header
            self.billed = step.last
            self.trail.add(Passed(step.last, header.position, step.positions, joined(step.outputs)))
            inputs = hashlib.sha256(joined(step.inputs)).digest()
            self.took.append(
                Took(step.first, step.last, header.position, step.positions, tuple(header.reorder), inputs)
            )
        return self.receipt

    def work_with(self, asked: Mapping[int, Asked], newest: int) -> Work:
        """The totals once all is done that was asked for and is not billed yet. Raises MalformedError."""
        work = self.tally.work
        for number in range(self.billed + 1, newest + 1):
            if (one := asked.get(number)) is not None:
                work = grown(work, StepHeader(StepKind.FORWARD, one.position), one.rows, one.positions)
        return work

    def may_differ(self, first: int, last: int, asked: Mapping[int, Asked]) -> bool:
        """Can these steps have come otherwise than they were asked: in a replay, or rolled back before they left?"""
        if last <= self.replayable:
            return True
        return not any(one.answered for number in range(first, last + 1) if (one := asked.get(number)))

    def follow(self, source: Source, newest: int, replayable: int, settled: int) -> None:
        """After step `newest`, `source` comes before it: steps up to `replayable` may come again, merged up to
        `settled`.
        """
        if self.sources and self.sources[-1][0] is not source:
            self.sources[-1] = self.sources[-1][0], newest
        if not self.sources or self.sources[-1][0] is not source:
            self.sources.append((source, None))
        self.replayable, self.settled, self.resumed = replayable, max(self.settled, settled), None


class _Walk:
    """Through the steps of a bill, one after the other."""

    def __init__(self, line: Line, asked: Mapping[int, Asked]) -> None:
        self._line, self._asked = line, asked
        self.tally, self.billed, self.reach, self.resumed = line.tally, line.billed, line.reach, line.resumed

    def take(self, step: BilledStep) -> None:
        """Raises WrongBillError, MalformedError."""
        asked = self._asked.get(step.last)
        if step.first != self.billed + 1:
            raise WrongBillError(f"bills step {step.first} after step {self.billed}")
        if asked is None:
            raise WrongBillError(f"bills step {step.last}, which was not asked of it")
        header, end = step.header, step.header.position + step.positions
        if header.kind is not StepKind.FORWARD:
            raise WrongBillError("bills a backward step in a session of forward ones")
        if len(step.inputs) != asked.rows:
            raise WrongBillError(f"bills {len(step.inputs)} rows of a step of {asked.rows}")
        if header.position > self.reach:
            raise WrongBillError(f"bills step {step.last} at position {header.position}, but holds {self.reach}")
        if not (self._as_asked(step, asked) or self._again(step, asked) or self._merged(step, asked)):
            raise WrongBillError(
                f"bills step {step.last} with {step.positions} positions at {header.position}; "
                f"{asked.positions} at {asked.position} were asked"
            )
        self.billed, self.reach = step.last, end
        if step.last <= self._line.settled:
            self.resumed = end
        self.tally = self.tally.after(step.counted)

    def _may_differ(self, first: int, last: int) -> bool:
        return self._line.may_differ(first, last, self._asked)

    def _as_asked(self, step: BilledStep, asked: Asked) -> bool:
        """The step itself. A rollback may have cut it, or those before it, if it comes again or was never answered."""
        header = step.header
        order = plain_order(tuple(header.reorder), asked.rows, header.position)
        wanted = plain_order(asked.reorder, asked.rows, asked.position)
        if header.position != asked.position or step.positions > asked.positions or order != wanted:
            return False
        is_whole = step.positions == asked.positions or self._may_differ(step.last, step.last)
        return is_whole and (step.first == step.last or self._may_differ(step.first, step.last - 1))

    def _again(self, step: BilledStep, asked: Asked) -> bool:
        """Only the reorder of a step whose own positions were rolled back, with a token that comes again."""
        header = step.header
        same = bool(asked.reorder) and tuple(header.reorder) == asked.reorder and step.positions == 1
        return same and self._may_differ(step.first, step.last)

    def _merged(self, step: BilledStep, asked: Asked) -> bool:
        """Part of a replay of what was settled: from where the part before ended, within what there was."""
        header = step.header
        if header.reorder or step.last > self._line.settled:
            return False
        follows = self.resumed is None or header.position == self.resumed
        return follows and header.position + step.positions <= asked.end


def _compare(due: Receipt, billed: Receipt) -> None:
    """Raises WrongBillError where a node's receipt is not what its steps come to."""
    if billed == due:
        return
    names = ("hold", "server", "session", "seq", "start", "stop", "profile", "work", "units", "commitment")
    wrong = next(name for name in (*names, "final") if getattr(billed, name) != getattr(due, name))
    shown = {name: getattr(receipt, wrong) for name, receipt in (("billed", billed), ("due", due))}
    told = "" if isinstance(shown["due"], bytes) else f": {shown['billed']}, not {shown['due']}"
    raise WrongBillError(f"bills another {wrong} than its steps come to{told}")
