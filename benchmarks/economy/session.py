"""Two sides of one line that do not trust each other: each counts for itself, and both sign what both have counted.

The node bills what it has computed, and goes no further than a window beyond the last bill that was signed. The client
signs a bill only if it is, to the byte, what it has counted itself of what reached it.
"""

from dataclasses import dataclass
from functools import cache

from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import SALT_SIZE, StepHeader, StepKind, digests
from nectar_protocol.errors import SignatureError
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.receipt import Receipt, SignedReceipt
from nectar_protocol.tally import Counted, Tally, Terms

from benchmarks.economy.market import BLOCKS

WINDOW_STEPS, WINDOW_TOKENS = 16, 1_024  # that a node computes before it waits for a signature
BILL_STEPS = 4  # after which it asks for one
SALT = bytes(SALT_SIZE)


@cache
def step(position: int, tokens: int, replay: bool = False) -> Counted:
    """Of one row. What goes in and comes out is told by the position alone, so that both sides see the same."""
    ins, outs = (
        digests(SALT, b"".join(side + n.to_bytes(8, "big") for n in range(position, position + tokens)), 1, tokens)
        for side in (b"in", b"out")
    )
    return Counted(StepHeader(StepKind.FORWARD, position), ins, outs, replay)


@dataclass(frozen=True)
class Bill:
    """A receipt with its node's signature alone."""

    receipt: Receipt
    signature: bytes


class Side:
    """What node and client have in common. `newest` is the last receipt that both have signed, as this side knows.

    With a receipt it goes on from there, and `reserved` tokens are reserved anew.
    """

    def __init__(
        self, identity: Identity, hold: Hold, node: Identity, meter: Meter, reserved: int = 0,
        receipt: SignedReceipt | None = None,
    ) -> None:  # fmt: skip
        self.identity, self.hold, self.meter, self.newest = identity, hold, meter, receipt
        terms = Terms(hold.id, node.public, hold.session, 0, BLOCKS, Profile.F32, 0, SALT)
        begun = Tally.begin(terms, reserved)
        self.tally = begun if receipt is None else Tally.resume(terms, receipt.receipt, reserved)

    @property
    def units(self) -> int:
        """What all that was counted is worth."""
        return self.meter.units(self.tally.work)

    @property
    def signed_units(self) -> int:
        return 0 if self.newest is None else self.newest.receipt.units


class Server(Side):
    """The node's side."""

    def __init__(
        self, identity: Identity, hold: Hold, meter: Meter, reserved: int = 0, receipt: SignedReceipt | None = None
    ) -> None:
        super().__init__(identity, hold, identity, meter, reserved, receipt)
        self.unsigned: list[Counted] = []
        self._open: Bill | None = None
        self._billed = 0

    def run(self, counted: Counted) -> bool:
        """Compute a step, unless the window is used up or the line would be."""
        line, tokens = self.hold.line(self.identity.public), sum(one.tokens for one in self.unsigned)
        after = self.tally.after(counted)
        if line is None or self.meter.units(after.work) > line.cap_units:
            return False
        if self.unsigned and (len(self.unsigned) >= WINDOW_STEPS or tokens + counted.tokens > WINDOW_TOKENS):
            return False
        self.tally = after
        self.unsigned.append(counted)
        return True

    def bill(self, final: bool = False) -> Bill | None:
        """Ask for a signature. None while one is awaited, or if there is nothing to sign."""
        if self._open is not None or not (self.unsigned or final or self.newest is None):
            return None
        receipt = self.tally.receipt(self.meter, final)
        self._open, self._billed = Bill(receipt, receipt.sign(self.identity)), len(self.unsigned)
        return self._open

    def take(self, signature: bytes) -> bool:
        """The client's yes to the open bill; False for anything else."""
        bill = self._open
        if bill is None:
            return False
        try:
            bill.receipt.verify_session(signature)
        except SignatureError:
            return False
        self.newest, self._open = SignedReceipt(bill.receipt, bill.signature, signature), None
        self.tally, self.unsigned = self.tally.signed(), self.unsigned[self._billed :]
        return True


class Client(Side):
    """The client's side."""

    def got(self, counted: Counted) -> None:
        """A step's output has arrived."""
        self.tally = self.tally.after(counted)

    def sign(self, bill: Bill) -> bytes | None:
        """None for a bill over anything else than what arrived."""
        if bill.receipt != self.tally.receipt(self.meter, bill.receipt.final):
            return None
        try:
            bill.receipt.verify_server(bill.signature)
        except SignatureError:
            return None
        signature = bill.receipt.sign(self.identity)
        self.tally, self.newest = self.tally.signed(), SignedReceipt(bill.receipt, bill.signature, signature)
        return signature
