"""The door: may this session run here under this hold? Checked cheapest first; every no has its reason.

What the ledger signed is believed, within what the node knows of that ledger; what the client says has to be signed by
the session's key, for this node, this link and this session.
"""

from collections.abc import Callable
from dataclasses import dataclass

from nectar_protocol.announcement import Profile
from nectar_protocol.errors import ConflictError, MalformedError, SignatureError
from nectar_protocol.hold import Hold, SignedHold, check_extends
from nectar_protocol.identity import PeerID, PublicKey
from nectar_protocol.metering import Meter
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.tally import Tally, Terms
from nectar_swarm.messages import Open
from nectar_swarm.payment import Payment
from nectar_swarm.tensors import CODES

from nectar_node.errors import PaymentError
from nectar_node.till.facts import Facts
from nectar_node.till.line import Line

SKEW_MS = 30_000


@dataclass(frozen=True)
class Ticket:
    """Leave to open a session: the newest revision of its hold, and its line here, which goes on from where it was."""

    hold: SignedHold
    line: Line

    @property
    def weight(self) -> int:
        """What the session's work weighs beside others'; 0 is the free class."""
        return self.hold.hold.weight


@dataclass(frozen=True)
class Door:
    """`want` is called with the ID of a policy that a hold names and this node does not know yet."""

    node: PublicKey
    model: bytes
    profile: Profile
    facts: Facts
    want: Callable[[bytes], None]

    def check(
        self,
        payment: Payment,
        request: Open,
        link: PeerID,
        number: int,
        now_ms: int,
        known: SignedHold | None,
        kept: SignedReceipt | None,
    ) -> Ticket:
        """Leave for the session `number` of this peer. Raises PaymentError.

        `known` is the newest revision of the hold that was seen, `kept` the newest receipt of its line here.
        """
        hold = payment.hold.hold
        self._check_hold(hold, now_ms)
        for receipt in (kept, payment.receipt):
            if receipt is not None and receipt.receipt.final and receipt.receipt.hold == hold.id:
                raise PaymentError("this line has its final receipt: open another hold")
        newest = self.revised(known, payment.hold)
        try:
            payment.verify(request, self.node, link, number)
        except SignatureError as error:
            text = "the session's key has not signed this opening, for this node, this link and this session"
            raise PaymentError(text) from error
        meter = self._meter(hold, request)
        return Ticket(newest, self._line(payment, request, newest.hold, meter, kept))

    def _check_hold(self, hold: Hold, now_ms: int) -> None:
        """What takes no signature. Raises PaymentError."""
        ledger = self.facts.ledger
        if ledger is None:
            raise PaymentError("this node takes no holds")
        if hold.ledger != ledger.ledger:
            raise PaymentError(f"the hold is of ledger {hold.ledger.hex()}; this node's is {ledger.ledger.hex()}")
        if hold.model != self.model:
            raise PaymentError("the hold is for another model")
        if self.profile not in hold.profiles:
            raise PaymentError(f"the hold does not take {self.profile.name.lower()}, which this node serves in")
        if now_ms > hold.expires_ms + SKEW_MS:
            raise PaymentError(f"the hold expired {(now_ms - hold.expires_ms) // 1000} s ago")
        if hold.session == self.node:
            raise PaymentError("the hold's session key is this node's own")

    def revised(self, known: SignedHold | None, shown: SignedHold) -> SignedHold:
        """The newer one of two revisions of a hold. Raises PaymentError for what the ledger has not signed, or what
        takes something back.
        """
        if known == shown:
            return shown
        ledger = self.facts.ledger
        if ledger is None:
            raise PaymentError("this node takes no holds")
        try:
            shown.verify(ledger.holds)
            if known is None:
                return shown
            if shown.hold.revision <= known.hold.revision and shown.hold.id == known.hold.id:
                return known
            check_extends(known.hold, shown.hold)
        except SignatureError as error:
            raise PaymentError("the hold is not signed by its ledger's key for holds") from error
        except ConflictError as error:
            raise PaymentError(str(error)) from error
        return shown

    def _meter(self, hold: Hold, request: Open) -> Meter:
        """Raises PaymentError. The hold's signature has been verified: its policy is worth asking for."""
        policy, entry = self.facts.policies.get(hold.policy), self.facts.model
        if policy is None:
            self.want(hold.policy)
            raise PaymentError(f"this node does not know the policy {hold.policy.hex()} yet, and asks its ledger")
        if entry is None:
            raise PaymentError("this node knows no entry for this model in its ledger")
        try:
            return Meter.of(request.start, request.stop, self.profile, entry, policy)
        except ConflictError as error:
            raise PaymentError(str(error)) from error

    def _line(self, payment: Payment, request: Open, hold: Hold, meter: Meter, kept: SignedReceipt | None) -> Line:
        """The line, behind its newest receipt if there is one. Raises PaymentError."""
        terms = Terms(
            hold.id, self.node, hold.session, request.start, request.stop, self.profile, CODES[request.dtype],
            payment.salt,
        )  # fmt: skip
        receipt, shown = kept, payment.receipt
        try:
            if shown is not None and (kept is None or shown.receipt.seq > kept.receipt.seq):
                Tally.resume(terms, shown.receipt, request.positions)
                shown.verify()
                receipt = shown
            if receipt is None:
                tally = Tally.begin(terms, request.positions)
            else:
                tally = Tally.resume(terms, receipt.receipt, request.positions)
            units = meter.units(tally.work)
        except SignatureError as error:
            raise PaymentError("the receipt to go on from is not signed by both") from error
        except (ConflictError, MalformedError) as error:
            raise PaymentError(str(error)) from error
        line = hold.line(self.node)
        if line is not None and units > line.cap_units:
            raise PaymentError(f"it comes to {units} units before the first step, and the line has {line.cap_units}")
        return Line(tally, meter, None if line is None else line.cap_units, request.batch, receipt)
