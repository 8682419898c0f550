"""One line of a hold as its node counts it: pure, without I/O and without a clock.

    admit → computed → counted → billed → countersigned

What was admitted and is not countersigned yet is the window: all that a node can lose. A step goes in while it fits, or
alone; so the loss is at most 16 steps and 1,024 tokens: none is larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nectar_protocol.commitment import StepHeader
from nectar_protocol.errors import ProtocolError, SignatureError
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.receipt import SignedReceipt, Work
from nectar_protocol.tally import Tally, grown
from nectar_swarm.bills import Bill, BilledStep, Countersignature

from nectar_node.errors import PaymentError, StepError

WINDOW_STEPS, WINDOW_TOKENS = 16, 1024
BILL_STEPS, BILL_TOKENS = 8, 512


@dataclass(frozen=True)
class Asked:
    """A step that came, and what it would have done: number `last`, and in a replay all from `first` on."""

    first: int
    last: int
    header: StepHeader
    rows: int
    positions: int

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return self.rows * self.positions


@dataclass(frozen=True)
class Offer:
    """A bill that waits for its countersignature."""

    bill: Bill
    tokens: int


class Line:
    """`cap_units` is None while the hold has no line for this node: then a window may be computed and none billed.

    `receipt` is the newest that both have signed.
    """

    def __init__(
        self, tally: Tally, meter: Meter, cap_units: int | None, rows: int, receipt: SignedReceipt | None = None
    ) -> None:
        self.tally, self.meter, self.cap_units, self.rows, self.receipt = tally, meter, cap_units, rows, receipt
        self.admitted: Work = tally.work  # the totals once all is computed that may be
        self.unsigned_steps = self.unsigned_tokens = 0
        self.unbilled: list[BilledStep] = []
        self.offer: Offer | None = None

    @property
    def uncounted_steps(self) -> int:
        """Admitted ones that are computed, or hashed, just now."""
        offered = len(self.offer.bill.steps) if self.offer else 0
        return self.unsigned_steps - offered - len(self.unbilled)

    def why_wait(self, step: Asked) -> str | None:
        """What keeps a step from being computed now, if anything does."""
        if self.unsigned_steps and (
            self.unsigned_steps >= WINDOW_STEPS or self.unsigned_tokens + step.tokens > WINDOW_TOKENS
        ):
            without = ", and the hold has no line for this node" if self.cap_units is None else ""
            return f"{self.unsigned_steps} steps of {self.unsigned_tokens} tokens are not countersigned{without}"
        if self.cap_units is None:
            return None
        try:
            units = self.meter.units(self._with(step))
        except ProtocolError as error:
            return str(error)
        if units > self.cap_units:
            return f"with this step it comes to {units} units, and the hold's line has {self.cap_units}"
        return None

    def admit(self, step: Asked) -> None:
        """It is going to be computed; nothing keeps it from that."""
        self.admitted = self._with(step)
        self.unsigned_steps += 1
        self.unsigned_tokens += step.tokens

    def _with(self, step: Asked) -> Work:
        return grown(self.admitted, step.header, step.rows, step.positions)

    def count(self, steps: Sequence[BilledStep], tally: Tally) -> None:
        """Admitted steps were computed, in their order; `tally` is this one's with them, made by `counted`."""
        self.tally = replace(tally, seq=self.tally.seq)  # a receipt may have been countersigned meanwhile
        self.unbilled += steps

    @property
    def unsigned_units(self) -> int:
        """What no receipt covers of all that was admitted, the opening among it."""
        signed = 0 if self.receipt is None else self.receipt.receipt.units
        return self.meter.units(self.admitted) - signed

    @property
    def unbilled_tokens(self) -> int:
        return sum(step.counted.tokens for step in self.unbilled)

    @property
    def opens(self) -> bool:
        """Is there no receipt yet that covers what this opening has reserved?"""
        signed = None if self.receipt is None else self.receipt.receipt.work
        return signed is None or signed.reserved_tokens < self.tally.work.reserved_tokens

    @property
    def may_bill(self) -> bool:
        return self.offer is None and self.cap_units is not None

    @property
    def is_due(self) -> bool:
        """Is there enough for a bill?"""
        enough = len(self.unbilled) >= BILL_STEPS or self.unbilled_tokens >= BILL_TOKENS
        return self.may_bill and enough

    def bill(self, server: Identity, final: bool = False) -> Bill:
        """All that is counted and not billed, signed. Only where `may_bill`."""
        assert self.may_bill, "one bill at a time, under a line"
        receipt = self.tally.receipt(self.meter, final)
        bill = Bill(self.rows, tuple(self.unbilled), receipt, receipt.sign(server))
        self.offer = Offer(bill, self.unbilled_tokens)
        self.unbilled = []
        return bill

    def countersign(self, answer: Countersignature) -> SignedReceipt | None:
        """The receipt that both have signed now; None if no bill waits for this answer. Raises PaymentError."""
        offer = self.offer
        if offer is None or offer.bill.receipt.seq != answer.seq:
            return None
        receipt = offer.bill.receipt
        try:
            receipt.verify_session(answer.signature)
        except SignatureError as error:
            raise PaymentError(f"receipt {answer.seq} is not countersigned by the session's key") from error
        self.receipt = SignedReceipt(receipt, offer.bill.signature, answer.signature)
        self.unsigned_steps -= len(offer.bill.steps)
        self.unsigned_tokens -= offer.tokens
        self.tally = self.tally.signed()
        self.offer = None
        return self.receipt


def counted(tally: Tally, steps: Sequence[BilledStep]) -> Tally:
    """With these steps. From any thread."""
    for step in steps:
        tally = tally.after(step.counted)
    return tally


def check_size(rows: int, positions: int) -> None:
    """Raise StepError for a step that no window has room for."""
    if rows * positions > WINDOW_TOKENS:
        raise StepError(f"a step of {rows * positions} tokens; under a hold a step has at most {WINDOW_TOKENS}")
