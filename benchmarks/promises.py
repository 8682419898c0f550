"""What a ledger has confirmed, and whether its log keeps it: every receipt and hold once, and never less."""

import base64
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nectar_ledger.home import Home
from nectar_ledger.store.scan import read_parts
from nectar_protocol.entries import HoldOpened, Settled
from nectar_protocol.entry import parse_entry
from nectar_protocol.hold import SignedHold
from nectar_protocol.money import charge_ucr
from nectar_protocol.receipt import SIZE, SignedReceipt

from benchmarks.ledgers import connected
from benchmarks.people import POLICY, WEIGHT
from benchmarks.requests import Request

Line = tuple[bytes, bytes]  # hold, node


class Promises:
    """Gathered from answers, by any number of threads."""

    def __init__(self) -> None:
        self.seqs: dict[Line, int] = {}
        self.receipts: dict[int, bytes] = {}  # by the index of their entry
        self.holds: dict[int, SignedHold] = {}
        self._answers = 0
        self._changed = threading.Condition()

    def keep(self, request: Request, answer: Any) -> None:
        with self._changed:
            if "hold" in answer:
                self.holds[answer["index"]] = SignedHold.unpack(base64.b64decode(answer["hold"]))
            for number, result in enumerate(answer.get("results", ())):
                packed = request.body[number * SIZE : (number + 1) * SIZE]
                receipt = SignedReceipt.unpack(packed).receipt
                line = receipt.hold, receipt.server
                if result["status"] == "settled":
                    self.receipts[result["index"]] = packed
                if result["status"] != "refused":
                    self.seqs[line] = max(self.seqs.get(line, 0), receipt.seq)
            self._answers += 1
            self._changed.notify_all()

    def wait(self, answers: int, timeout_s: float) -> None:
        """Until so many requests were answered, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers >= answers, timeout_s)

    @property
    def answers(self) -> int:
        return self._answers


@dataclass
class Record:
    """What a log says: each line's newest seq, how many holds there are, and lines paid more or less than due."""

    entries: Sequence[bytes]
    seqs: dict[Line, int] = field(default_factory=dict)
    holds: int = 0
    counted_twice: int = 0
    underpaid: int = 0

    @classmethod
    def read(cls, home: Home) -> "Record":
        with connected(home) as database, database.reading.begin() as connection:
            return cls.of([entry for part in read_parts(connection) for entry in part.entries])

    @classmethod
    def of(cls, entries: Sequence[bytes]) -> "Record":
        record = cls(entries)
        record._count()
        return record

    def _count(self) -> None:
        """From the entries alone: not by the ledger's core, and not from its tables."""
        moved_ucr: defaultdict[Line, int] = defaultdict(int)
        units: dict[Line, int] = {}
        holds: Counter[bytes] = Counter()
        for entry in self.entries:
            body = parse_entry(entry).body
            if isinstance(body, Settled):
                receipt = body.receipt.receipt
                line = receipt.hold, receipt.server
                self.counted_twice += receipt.seq <= self.seqs.get(line, 0)
                self.seqs[line], units[line] = receipt.seq, receipt.units
                moved_ucr[line] += body.paid_ucr + body.fee_ucr
            elif isinstance(body, HoldOpened):
                holds[body.hold.hold.id] += 1
        self.holds = len(holds)
        self.counted_twice += holds.total() - len(holds)
        for line, ucr in moved_ucr.items():
            due_ucr = charge_ucr(units[line], WEIGHT, POLICY.price)
            self.counted_twice += ucr > due_ucr
            self.underpaid += ucr < due_ucr

    def lost(self, promises: Promises) -> int:
        """How many of the confirmed receipts and holds are not in the log, or not where it was said."""
        lost = self.underpaid + sum(self.seqs.get(line, 0) < seq for line, seq in promises.seqs.items())
        for index, packed in promises.receipts.items():
            lost += index >= len(self.entries) or not self.entries[index].endswith(packed)
        for index, hold in promises.holds.items():
            lost += index >= len(self.entries) or hold.pack() not in self.entries[index]
        return lost
