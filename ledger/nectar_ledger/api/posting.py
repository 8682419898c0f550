"""A batch of receipts on its way through the checks, cheapest first.

Of several receipts for one line only the newest is verified and recorded, since they are running totals; if it is bad,
the one before it. "Superseded" is answered only when what supersedes is committed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nectar_protocol.errors import MalformedError, SignatureError
from nectar_protocol.identity import PublicKey, verify
from nectar_protocol.receipt import BODY, SERVER_ROLE, SESSION_ROLE, SIZE, Receipt, SignedReceipt

from nectar_ledger.api.errors import ApiError, Problem
from nectar_ledger.core.machine import Answer, Outcome
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.settling import Due, due
from nectar_ledger.core.state import State
from nectar_ledger.service import Service
from nectar_ledger.store.settled import read_settled

MAX_RECEIPTS = 1000
MAX_BYTES = MAX_RECEIPTS * SIZE
MAX_WRONG = 10

Result = dict[str, Any]
SUPERSEDED: Result = {"status": "superseded"}


def refused(code: str, message: str) -> Result:
    return {"status": "refused", "error": code, "message": message}


@dataclass
class Posting:
    """`results` has None where the answer is not known yet.

    `lines` are the positions of the receipts that may count, by hold and server, the newest last. `doubtful` are those
    of which only the tables can tell: their holds are not open, or what supersedes them is not committed yet.
    """

    sender: PublicKey
    pieces: Sequence[bytes]
    results: list[Result | None] = field(init=False)
    parsed: dict[int, SignedReceipt] = field(default_factory=dict)
    lines: dict[tuple[bytes, PublicKey], list[int]] = field(default_factory=dict)
    doubtful: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.pieces)

    @classmethod
    def cut(cls, sender: PublicKey, body: bytes) -> "Posting":
        """Raises ApiError for a body that is not whole receipts."""
        if not body or len(body) % SIZE or len(body) > MAX_BYTES:
            message = f"a batch is 1 to {MAX_RECEIPTS} receipts of {SIZE} bytes; {len(body)} bytes are none"
            raise ApiError(Problem.MALFORMED, message)
        return cls(sender, [body[start : start + SIZE] for start in range(0, len(body), SIZE)])

    def examine(self, service: Service) -> None:
        """All that is checked without a signature."""
        # Before the state: what is below this size was committed when the state is looked at.
        durable_size = service.durable_size
        now_ms, state = service.clock_ms(), service.state
        for position in range(len(self.pieces)):
            try:
                self._examine(position, state, now_ms, durable_size)
            except MalformedError as error:
                self.results[position] = refused(Problem.MALFORMED, str(error))
            except Refused as error:
                self.results[position] = refused(error.reason, error.message)
        for positions in self.lines.values():
            positions.sort(key=lambda position: self.parsed[position].receipt.seq)

    def _examine(self, position: int, state: State, now_ms: int, durable_size: int) -> None:
        signed = SignedReceipt.unpack(self.pieces[position])
        receipt = signed.receipt
        if self.sender != receipt.server and self.sender != receipt.session:
            raise Refused(Reason.NOT_AUTHORIZED, "a receipt is posted by its node or by its session")
        self.parsed[position] = signed
        if receipt.hold not in state.holds:
            self.doubtful.append(position)
        elif _due(state, receipt, now_ms) is not None:
            self.lines.setdefault((receipt.hold, receipt.server), []).append(position)
        elif _newest_index(state, receipt) < durable_size:
            self.results[position] = SUPERSEDED
        else:
            self.doubtful.append(position)

    def verify(self, wrong: Callable[[], None]) -> list[int]:
        """The newest receipt of each line that both have signed, by position; `wrong` is called for each other one.

        Raises ApiError for too many of those, and if the sender is a node that has itself signed something else.
        """
        chosen, faults = [], 0
        for positions in self.lines.values():
            while positions:
                try:
                    self._verify(positions[-1])
                except SignatureError as error:
                    wrong()
                    faults += 1
                    if faults > MAX_WRONG:
                        message = f"more than {MAX_WRONG} wrong signatures in a batch, and nothing of it is recorded"
                        raise ApiError(Problem.BAD_SIGNATURE, message) from error
                    self.results[positions.pop()] = refused(Problem.BAD_SIGNATURE, str(error))
                else:
                    chosen.append(positions[-1])
                    break
        return chosen

    def _verify(self, position: int) -> None:
        """Raises SignatureError, or ApiError for the sender's own fault."""
        signed, body = self.parsed[position], self.pieces[position][: BODY.size]
        receipt = signed.receipt
        try:
            verify(receipt.server, SERVER_ROLE, body, signed.server_signature)
        except SignatureError as error:
            if receipt.server != self.sender:
                raise
            message = f"you have not signed receipt {position} of the batch, and nothing of it is recorded"
            raise ApiError(Problem.BAD_SIGNATURE, message) from error
        verify(receipt.session, SESSION_ROLE, body, signed.session_signature)

    def look_up(self, service: Service) -> None:
        """Answer what the tables can tell. What they cannot tell yet stays doubtful."""
        receipts = {position: self.parsed[position].receipt for position in self.doubtful}
        holds = {receipt.hold for receipt in receipts.values()}
        with service.database.reading.begin() as connection:
            settled = read_settled(connection, holds, {receipt.server for receipt in receipts.values()})
        self.doubtful = []
        for position, receipt in receipts.items():
            line = settled.get((receipt.hold, receipt.server))
            if line is None:
                message = "no hold of this ledger has this ID and a line for this node"
                self.results[position] = refused(Reason.UNKNOWN_HOLD, message)
            elif receipt.seq <= line.seq:
                self.results[position] = SUPERSEDED
            elif line.is_closed:
                message = "the hold is closed: lines are settled before it expires, or within its grace"
                self.results[position] = refused(Problem.HOLD_CLOSED, message)
            else:
                self.doubtful.append(position)

    def conclude(self, chosen: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """What became of the newest of a line is the answer for the older ones too."""
        for position, outcome in zip(chosen, outcomes, strict=True):
            receipt, older = self.parsed[position].receipt, SUPERSEDED
            if not isinstance(outcome, Answer):
                older = self.results[position] = refused(outcome.code, outcome.message)
            elif outcome.index is None:
                self.results[position] = SUPERSEDED
            else:
                self.results[position] = {"status": "settled", "index": outcome.index}
            for other in self.lines[receipt.hold, receipt.server][:-1]:
                self.results[other] = older


def _due(state: State, receipt: Receipt, now_ms: int) -> Due | None:
    """Looks again before it refuses: the sequencer may have been in the midst of this line."""
    try:
        return due(state, receipt, now_ms)
    except Refused:
        return due(state, receipt, now_ms)


def _newest_index(state: State, receipt: Receipt) -> int:
    """The entry that the line's newest receipt is in."""
    hold = state.holds.get(receipt.hold)
    line = None if hold is None else hold.lines.get(receipt.server)
    return state.index if line is None or line.receipt_index is None else line.receipt_index
