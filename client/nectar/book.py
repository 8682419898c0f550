"""A session's holds, and the lines that its nodes have or had under them."""

from nectar_protocol.identity import PeerID
from nectar_protocol.money import charge_ucr
from nectar_protocol.receipt import SignedReceipt

from nectar.line import Line
from nectar.purse import Bought
from nectar.spent import NodeSpent, Spent


class Book:
    """`bought` is the hold that nodes are shown now, `lines` are those of the present route."""

    def __init__(self) -> None:
        self.bought: Bought | None = None
        self.lines: dict[PeerID, Line] = {}
        self._all: list[Line] = []
        self._holds: dict[bytes, Bought] = {}

    @property
    def holds(self) -> list[Bought]:
        return list(self._holds.values())

    @property
    def spent(self) -> Spent:
        """By the newest receipt of each line of each hold: totals go on where a line is opened again."""
        totals: dict[PeerID, tuple[int, int]] = {}
        for (hold, peer), line in {(line.terms.hold, line.peer): line for line in self._all if line.receipt}.items():
            bought = self._holds[hold]
            ucr = charge_ucr(line.units, bought.hold.hold.weight, bought.purchase.policy.price)
            units, before_ucr = totals.get(peer, (0, 0))
            totals[peer] = units + line.units, before_ucr + ucr
        return Spent(tuple(NodeSpent(peer, units, ucr) for peer, (units, ucr) in totals.items()))

    def hold(self, bought: Bought) -> None:
        """A new hold, or a revision of the present one."""
        self.bought = self._holds[bought.hold.hold.id] = bought

    def open(self, line: Line) -> None:
        self.lines[line.peer] = line
        self._all.append(line)

    def line(self, peer: PeerID, number: int | None = None) -> Line | None:
        """The newest of a node, under session `number` if one is given."""
        lines = (line for line in reversed(self._all) if line.peer == peer and number in (None, line.number))
        return next(lines, None)

    def of_number(self, number: int) -> list[Line]:
        """All that were opened under this number."""
        return [line for line in self._all if line.number == number]

    def receipt(self, peer: PeerID, hold: bytes) -> SignedReceipt | None:
        """The newest of a node under a hold."""
        lines = (line for line in reversed(self._all) if (line.peer, line.terms.hold) == (peer, hold) and line.receipt)
        return next((line.receipt for line in lines), None)

    def finals(self, hold: bytes) -> list[SignedReceipt]:
        """Those of a hold that nothing follows."""
        receipts = (line.receipt for line in self._all if line.terms.hold == hold and line.final)
        return [receipt for receipt in receipts if receipt is not None]

    def has_closed(self, peer: PeerID) -> bool:
        """Has a node closed its line of the present hold?"""
        hold = self.bought.hold.hold.id if self.bought else None
        return any(line.final for line in self._all if (line.peer, line.terms.hold) == (peer, hold))

    @property
    def peers(self) -> list[PeerID]:
        """Of all nodes that have billed something."""
        return list(dict.fromkeys(line.peer for line in self._all if line.took))
