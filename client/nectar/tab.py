"""A session's tab: what it asked of its nodes, and which of their bills it signs. No I/O.

A bill is signed when it is right in itself, when the answers to its steps have come, and when what the node says it
took in is what its predecessor says it passed on; what went in and came out at the ends the session knows itself. Until
the predecessor has billed, a bill waits; who is gone is waited for no longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from nectar_protocol.errors import MalformedError
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SignedReceipt
from nectar_swarm.bills import Bill, BilledStep

from nectar.line import Asked, Line, Order, Pending, Source, WrongBillError
from nectar.trail import Passed, joined


@dataclass(frozen=True)
class Signed:
    """A bill that the session has signed, and the receipt that both have signed now."""

    line: Line
    receipt: SignedReceipt


@dataclass(frozen=True)
class Fault:
    """Who must not serve the session any longer, and why."""

    line: Line
    reason: str


Decision = Signed | Fault


class Agreement(Enum):
    """What is known of a step's way into a node."""

    AGREED = auto()
    OPEN = auto()
    DISPUTED = auto()


class Tab:
    """Of one session, whose `key` signs. Each method that learns something returns what can be decided now."""

    def __init__(self, key: Identity) -> None:
        self._key = key
        self.newest = 0  # the last step that was asked for
        self._heard = 0  # the last one whose answer has come
        self._asked: dict[int, Asked] = {}
        self._client = Source()
        self._lines: list[Line] = []
        self._answers: dict[int, tuple[Line, bytes]] = {}

    @property
    def lines(self) -> Sequence[Line]:
        """All that were opened, those that are gone among them."""
        return self._lines

    def open(self, line: Line) -> None:
        """A node is asked for the session."""
        self._lines.append(line)

    def ask(self, number: int, rows: int, position: int, positions: int, reorder: Order = ()) -> None:
        self.newest = max(self.newest, number)
        self._asked[number] = Asked(rows, position, positions, reorder)

    def place(self, chain: Sequence[Line | None], settled: int) -> None:
        """The route is this now, None for who bills nothing. Steps up to `settled` come merged if they come again."""
        source: Source = self._client
        again = self.newest if any(asked.answered for asked in self._asked.values()) else 0
        for line in chain:
            if line is not None:
                line.follow(source, self.newest, again, settled)
            source = line or Source(speaks=False)

    def exceeds(self, line: Line) -> bool:
        """Does what was asked for come to more than the line has?"""
        if line.cap_units is None:
            return False
        try:
            return line.meter.units(line.work_with(self._asked, self.newest)) > line.cap_units
        except MalformedError:
            return True

    # What becomes known

    def sent(self, number: int, digests: Sequence[Sequence[bytes]]) -> list[Decision]:
        """What the session itself sent as step `number`."""
        asked = self._asked[number]
        self._client.trail.add(Passed(number, asked.position, asked.positions, joined(digests)))
        return self._settle()

    def answered(self, number: int, line: Line | None, digests: Sequence[Sequence[bytes]]) -> list[Decision]:
        """What came back as the output of step `number`, from a node with a line or without one."""
        self._asked[number].answered = True
        self._heard = max(self._heard, number)
        if line is not None:
            self._answers[number] = line, joined(digests)
        return self._settle()

    def lose(self, line: Line) -> list[Decision]:
        """Its node has left the route; nobody waits for what it would have billed."""
        line.speaks = False
        return self._settle()

    def drop(self, line: Line) -> list[Decision]:
        """Its node has been asked anew, and nothing that it bills for the time before is signed."""
        line.believed, line.pending = False, None
        return self.lose(line)

    def cap(self, hold: Hold) -> list[Decision]:
        """What the lines of a hold allow now."""
        caps = {line.server: line.cap_units for line in hold.lines}
        for line in self._lines:
            if line.terms.hold == hold.id:
                line.cap_units = caps.get(line.terms.server)
        return self._settle()

    def bill(self, line: Line, bill: Bill) -> list[Decision]:
        """A node's bill, and all that waited for it."""
        if not line.believed:
            return []
        try:
            line.pending = line.examine(bill, self._asked, self.newest)
        except WrongBillError as error:
            return [self._blame(line, str(error)), *self._settle()]
        return self._settle()

    # Decisions

    def _settle(self) -> list[Decision]:
        """Decide whatever can be decided; each decision may make others possible."""
        decisions: list[Decision] = []
        while (decision := self._next()) is not None:
            decisions.append(decision)
        return decisions

    def _next(self) -> Decision | None:
        for line in self._lines:
            if line.pending is not None and (decision := self._decide(line, line.pending)) is not None:
                return decision
        return None

    def _decide(self, line: Line, pending: Pending) -> Decision | None:
        receipt = pending.bill.receipt
        if line.cap_units is not None and receipt.units > line.cap_units:
            return self._blame(line, f"bills {receipt.units} units, and its line has {line.cap_units}")
        waits = line.cap_units is None or any(step.last > self._heard for step in pending.bill.steps)
        for step in pending.bill.steps:
            if not self._came_out(line, step):
                return self._blame(line, f"bills another output of step {step.last} than came from it")
            agreement, source = self._went_in(line, step, pending.newest)
            if agreement is Agreement.DISPUTED:
                return self._judge(line, source, step.last)
            waits = waits or agreement is Agreement.OPEN
        if waits:
            return None
        for step in pending.bill.steps:
            if self._answers.get(step.last, (None, b""))[0] is line:
                del self._answers[step.last]
        return Signed(line, line.commit(pending, receipt.sign(self._key)))

    def _came_out(self, line: Line, step: BilledStep) -> bool:
        """Is what came to the session, if anything came from there, what the node says it sent?"""
        sender, digests = self._answers.get(step.last, (None, b""))
        return sender is not line or digests == joined(step.outputs)

    def _went_in(self, line: Line, step: BilledStep, newest: int) -> tuple[Agreement, Source]:
        """Does anybody who can have sent it say that he passed on what the node says it took in?

        Who is gone, or was found out, cannot be asked: then nothing can be held against it.
        """
        taken = Passed(step.last, step.header.position, step.positions, joined(step.inputs))
        differs = line.may_differ(step.first, step.last, self._asked)
        result, last = Agreement.DISPUTED, self._client
        for source, until in line.sources:
            if until is not None and step.last > until:
                continue
            last = source
            if source.trail.at(step.last) == taken or (differs and source.trail.has(taken)):
                return Agreement.AGREED, source
            if not source.speaks:
                return Agreement.AGREED, source
            if source.trail.reached < (newest if differs else step.last):
                result = Agreement.OPEN
        return result, last

    def _judge(self, line: Line, source: Source, number: int) -> Fault:
        """Two neighbours differ in what passed between them. The session knows only what it passed on itself."""
        line.disputes += 1
        if isinstance(source, Line) and line.disputes == 1:
            return self._blame(source, f"and its successor {line.peer[-6:]} disagree on step {number} between them")
        known = "what was sent to it" if source is self._client else "what its predecessor sent"
        return self._blame(line, f"bills another input of step {number} than {known}")

    def _blame(self, line: Line, reason: str) -> Fault:
        line.speaks = line.believed = False
        line.pending = None
        return Fault(line, reason)
