"""The two sides of one line, as node and client count it: the till's line, and the session's tab. Nothing is computed;
what goes into a step and comes out of it is told by its position.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from nectar.line import Line as BilledLine
from nectar.tab import Decision, Signed, Tab
from nectar_node.till.line import Asked, Line, check_size, counted
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import SALT_SIZE, Digests, StepHeader, StepKind, digests
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.receipt import SignedReceipt, Work
from nectar_protocol.tally import Tally, Terms
from nectar_swarm.bills import Bill, BilledStep, Countersignature

from benchmarks.economy.market import BLOCKS

SALT = bytes(SALT_SIZE)


class Step(NamedTuple):
    """Of one row: number `last`, and in a replay all from `first` on."""

    first: int
    last: int
    position: int
    positions: int

    @property
    def end(self) -> int:
        return self.position + self.positions

    @property
    def header(self) -> StepHeader:
        return StepHeader(StepKind.FORWARD, self.position)

    @property
    def billed(self) -> BilledStep:
        inputs, outputs = (vectors(side, self.position, self.positions) for side in ("in", "out"))
        return BilledStep(self.first, self.last, self.header, inputs, outputs)


@cache
def vectors(side: str, position: int, positions: int) -> Digests:
    data = b"".join(f"{side} {number:12}".encode() for number in range(position, position + positions))
    return digests(SALT, data, 1, positions)


def tally(hold: Hold, node: Identity, reserved: int = 0, receipt: SignedReceipt | None = None) -> Tally:
    """Of a line before its first step, or behind a receipt."""
    terms = Terms(hold.id, node.public, hold.session, 0, BLOCKS, Profile.F32, 0, SALT)
    return Tally.begin(terms, reserved) if receipt is None else Tally.resume(terms, receipt.receipt, reserved)


class Serving:
    """The node's side of a session."""

    def __init__(
        self, node: Identity, hold: Hold, meter: Meter, reserved: int = 0, receipt: SignedReceipt | None = None
    ) -> None:
        line = hold.line(node.public)
        self.node, self._meter = node, meter
        self.line = Line(
            tally(hold, node, reserved, receipt), meter, None if line is None else line.cap_units, 1, receipt
        )  # fmt: skip

    @property
    def work(self) -> Work:
        """All that was computed, since the line's beginning."""
        return self.line.tally.work

    @property
    def units(self) -> int:
        return self._meter.units(self.work)

    @property
    def signed_units(self) -> int:
        return 0 if self.line.receipt is None else self.line.receipt.receipt.units

    def run(self, step: Step) -> bool:
        """Compute a step, unless it has to wait. Raises StepError for one that no window has room for."""
        check_size(1, step.positions)
        asked = Asked(step.first, step.last, step.header, 1, step.positions)
        if self.line.why_wait(asked) is not None:
            return False
        self.line.admit(asked)
        self.line.count([step.billed], counted(self.line.tally, [step.billed]))
        return True

    def bill(self, final: bool = False) -> Bill | None:
        """None while another one is open, or if there is nothing to bill."""
        if not self.line.may_bill or not (self.line.unbilled or final):
            return None
        return self.line.bill(self.node, final)

    def take(self, receipt: SignedReceipt) -> None:
        """The client's countersignature."""
        self.line.countersign(Countersignature(receipt.receipt.seq, receipt.session_signature))


class Using:
    """The client's side of a session on one node. `receipt` is the newest that both have signed."""

    def __init__(self, key: Identity, hold: Hold, node: Identity, meter: Meter, reserved: int = 0) -> None:
        self.hold, self.node, self._meter, self._reserved = hold, node, meter, reserved
        self.tab = Tab(key)
        self.receipt: SignedReceipt | None = None
        self.answered = 0
        self._line = self._open(1)

    def reopen(self) -> None:
        """Behind the newest receipt. What was answered comes merged, if it comes again."""
        self._keep(self.tab.lose(self._line))
        self._line = self._open(self._line.number + 1)

    def _open(self, number: int) -> BilledLine:
        cap = self.hold.line(self.node.public)
        line = BilledLine(
            peer=self.node.peer_id, number=number, meter=self._meter,
            tally=tally(self.hold, self.node, self._reserved, self.receipt),
            cap_units=None if cap is None else cap.cap_units,
        )  # fmt: skip
        self.tab.open(line)
        self.tab.place([line], self.answered)
        return line

    def ask(self, step: Step) -> None:
        """It is sent for the first time."""
        self.tab.ask(step.last, 1, step.position, step.positions)
        self._keep(self.tab.sent(step.last, vectors("in", step.position, step.positions)))

    def hear(self, step: Step) -> None:
        """Its output has come."""
        self.answered = max(self.answered, step.last)
        if step.first == step.last:
            self._keep(self.tab.answered(step.last, self._line, vectors("out", step.position, step.positions)))

    def sign(self, bill: Bill) -> SignedReceipt | None:
        """The receipt, if the bill is signed at once."""
        before = self.receipt
        self._keep(self.tab.bill(self._line, bill))
        return None if self.receipt is before else self.receipt

    def _keep(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Signed):
                self.receipt = decision.receipt


def agree(serving: Serving, using: Using, final: bool = False) -> SignedReceipt:
    """What both have counted, signed by both. Raises RuntimeError if they do not agree."""
    bill = serving.bill(final)
    signed = using.sign(bill) if bill else None
    if signed is None:
        raise RuntimeError("honest sides count alike")
    serving.take(signed)
    return signed
