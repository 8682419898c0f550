"""Pays for one session: shows its hold to nodes and signs their bills.

Nothing here holds up a step: vectors are hashed when they have left or have been handed on, and the ledger is asked
but once before the session opens, and then behind its back.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nectar_protocol.commitment import digests
from nectar_protocol.errors import MalformedError, ProtocolError
from nectar_protocol.identity import Identity, PeerID, parse_peer_id
from nectar_protocol.manifest import ModelID
from nectar_protocol.tally import Tally, Terms
from nectar_swarm.bills import Bill, Countersignature
from nectar_swarm.frames import Kind
from nectar_swarm.link import Link
from nectar_swarm.messages import ErrorCode, Open, Step
from nectar_swarm.payment import Payment, opening
from nectar_swarm.tensors import CODES
from nectar_swarm.vectors import vector_digests

from nectar.book import Book
from nectar.caps import Extent
from nectar.closing import Closing, Lingering
from nectar.errors import PaymentError
from nectar.histories import Histories
from nectar.line import Line
from nectar.purse import Bought, Order, Part, Purse, UnmeteredError
from nectar.renewal import Renewal
from nectar.route import Hop
from nectar.spent import Spent
from nectar.tab import Decision, Fault, Signed, Tab

PAID_VERSION = 3  # of the wire, the first that has bills
REFUSED_S = 1.0  # for which a node may say no to a hold: it may have to ask its ledger for the policy
OPEN_S = 3.0  # for which a session waits for its hold
WORN = 0.85  # of a line that cannot be raised, at which the session is opened anew

log = logging.getLogger(__name__)


class Network(Lingering, Protocol):
    """What a payer needs of its connection."""

    @property
    def peer(self) -> PeerID: ...


class Customer(Protocol):
    """The session that is paid for."""

    def on_fault(self, peer: PeerID, reason: str, aside: bool) -> None:
        """This node must not serve it any longer."""

    def on_worn(self, reason: str) -> None:
        """All nodes must be opened anew."""


class Payer:
    """Lives in the connection's loop. Where there is nothing to pay with, nodes are opened without a hold."""

    def __init__(
        self, network: Network, customer: Customer, purse: Purse, model: ModelID, weight: int, budget_ucr: int
    ) -> None:
        self._network, self._customer, self._purse, self._model = network, customer, purse, model
        self._weight, self._budget_ucr = weight, budget_ucr
        self._key, self._salt = Identity.generate(), secrets.token_bytes(32)
        self._tab, self._book = Tab(self._key), Book()
        self._renewal = Renewal(self._book, purse, self._key, self)
        self._histories = Histories(network, self._book, purse, self._key)
        self._unmetered: set[PeerID] = set()
        self._refused_s: dict[PeerID, float] = {}  # since when
        self._is_prepared = self._is_worn = self._closed = False
        self._closing = Closing(network, self, self._book, purse, self._key, self._histories)

    @property
    def spent(self) -> Spent:
        return self._book.spent

    # Opening

    async def prepare(self, hops: Sequence[Hop], extent: Extent) -> None:
        """Have a hold for these, unless there is one, or was none to be had. Raises PaymentError."""
        if not any(hop.opened for hop in hops) and any(self._book.has_closed(hop.peer) for hop in hops):
            self._book.bought, self._is_prepared = None, False
        if self._is_prepared:
            return
        self._renewal.extent = extent
        try:
            async with asyncio.timeout(OPEN_S):
                await self._buy(hops, extent)
        except TimeoutError as error:
            self._purse.ledger.went_down()
            self._purse.warn("the ledger is too slow; sessions are served unmetered, in the free class", error)
        except UnmeteredError as error:
            if self._weight:
                log.warning("this session is served unmetered, in the free class: %s", error)
        self._is_prepared = True
        self._renewal.watch()

    async def _buy(self, hops: Sequence[Hop], extent: Extent) -> None:
        """Raises UnmeteredError, PaymentError."""
        await self._purse.learn(self._model)
        parts = [_part(hop) for hop in hops if self._takes_holds(hop)]
        if not parts:
            raise UnmeteredError("no node of the route takes holds of this ledger")
        left_ucr = max(0, self._budget_ucr - self.spent.ucr)
        self._book.hold(await self._purse.open(Order(self._key, self._model, extent, self._weight, left_ucr), parts))

    def _takes_holds(self, hop: Hop) -> bool:
        link, ledger = self._network.present_link(hop.peer), self._purse.ledger
        can = link is not None and link.version >= PAID_VERSION and ledger.may_be_bound(parse_peer_id(hop.peer))
        return can and bool(hop.ledger) and hop.ledger == ledger.id and hop.peer not in self._unmetered

    def payment(self, hop: Hop, request: Open, number: int) -> bytes:
        """What the OPEN of session `number` shows to a node: the hold, or nothing."""
        bought = self._book.bought
        self._book.lines.pop(hop.peer, None)
        if bought is None or not self._takes_holds(hop):
            return b""
        if bought.hold.hold.line(parse_peer_id(hop.peer)) is None and not self._can_extend:
            return b""
        try:
            line = self._line(bought, hop, request, number)
        except ProtocolError as error:
            log.info("%s is opened without a hold: %s", hop.peer, error)
            return b""
        self._book.open(line)
        self._tab.open(line)
        proof = opening(request, bought.hold, self._salt, line.terms.server, parse_peer_id(self._network.peer), number)
        return Payment(bought.hold, self._salt, proof.sign(self._key), line.receipt).pack()

    @property
    def _can_extend(self) -> bool:
        return self._renewal.short is None and not self._purse.ledger.is_down

    def _line(self, bought: Bought, hop: Hop, request: Open, number: int) -> Line:
        """One that begins, or goes on behind the last receipt of this node's. Raises ProtocolError."""
        hold, part, dtype = bought.hold.hold, _part(hop), CODES[request.dtype]
        terms = Terms(hold.id, part.node, self._key.public, part.start, part.stop, part.profile, dtype, self._salt)
        receipt, reserved = self._book.receipt(hop.peer, hold.id), request.positions
        tally = Tally.resume(terms, receipt.receipt, reserved) if receipt else Tally.begin(terms, reserved)
        line = Line(peer=hop.peer, number=number, meter=bought.meter(part), tally=tally)
        in_hold = hold.line(part.node)
        line.receipt, line.cap_units = receipt, in_hold.cap_units if in_hold else None
        return line

    def placed(self, hops: Sequence[Hop], settled: int) -> None:
        """Every hop has been told its place."""
        present, lines = {hop.peer for hop in hops}, self._book.lines
        for peer in [peer for peer in lines if peer not in present]:
            self._decide(self._tab.lose(lines.pop(peer)))
        self._tab.place([lines.get(hop.peer) for hop in hops], settled)
        self._renewal.look()

    def left(self, number: int) -> None:
        """No node goes on with the session under this number. Where its hold is worn, they close their lines."""
        for line in self._book.of_number(number):
            self._decide(self._tab.lose(line) if self._is_worn else self._tab.drop(line))
        self._book.lines.clear()
        if self._is_worn and self._book.bought is not None:
            self._closing.await_finals(number)
            self._book.bought, self._is_prepared = None, False
        self._is_worn = False

    def on_refusal(self, hop: Hop, code: ErrorCode) -> PaymentError | None:
        """A node takes the hold no longer, or not yet; the error for who waits, if there is no more to be paid with."""
        if self._book.lines.pop(hop.peer, None) is None:
            return None
        since_s = self._refused_s.setdefault(hop.peer, time.monotonic())
        if code is ErrorCode.UNPAID or time.monotonic() - since_s > REFUSED_S:
            self._unmetered.add(hop.peer)
        return self._renewal.short

    # Steps

    @property
    def _counts(self) -> bool:
        """Does anybody bill this session, or may it be so yet?"""
        return self._book.bought is not None or not self._is_prepared

    def asked(self, step: Step) -> PaymentError | None:
        """A step is about to be sent; an error if it cannot be paid for any more."""
        if not self._counts:
            return None
        rows, positions, _ = step.hidden.shape
        self._renewal.used()
        self._tab.ask(step.last, rows, step.position, positions, step.reorder)
        self._soon(self._on_sent, step)
        short = self._renewal.short
        return short if short and any(map(self._tab.exceeds, self._book.lines.values())) else None

    def answered(self, step: Step, peer: PeerID, payload: bytes) -> None:
        """`payload` is the step's, which the session's user cannot change under us."""
        if self._counts:
            self._soon(self._on_answered, step, self._book.lines.get(peer), payload)

    def _soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Behind what this turn of the loop still sends or hands on; in order."""
        asyncio.get_running_loop().call_soon(function, *arguments)

    def _on_sent(self, step: Step) -> None:
        self._decide(self._tab.sent(step.last, vector_digests(self._salt, step.hidden)))

    def _on_answered(self, step: Step, line: Line | None, payload: bytes) -> None:
        rows, positions, _ = step.hidden.shape
        output = payload[-step.hidden.nbytes :]
        self._decide(self._tab.answered(step.last, line, digests(self._salt, output, rows, positions)))

    # Bills

    def on_message(self, number: int, link: Link, kind: Kind, payload: bytes) -> bool:
        """What comes under session `number`; False if it is not for us."""
        if kind is Kind.BILL:
            self._soon(self._on_bill, number, link.peer, payload)
        elif kind is Kind.PAST:
            self._histories.on_past(link.peer, payload)
        else:
            return kind is Kind.ERROR and self._histories.on_error(link, payload)
        return True

    def _on_bill(self, number: int, peer: PeerID, payload: bytes) -> None:
        if (line := self._book.line(peer, number)) is None:
            return
        try:
            bill = Bill.unpack(payload)
        except MalformedError as error:
            self._customer.on_fault(peer, f"sent a broken bill: {error}", True)
            return
        self._decide(self._tab.bill(line, bill))

    def _decide(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            line = decision.line
            match decision:
                case Signed(receipt=receipt):
                    if link := self._network.present_link(line.peer):
                        answer = Countersignature(receipt.receipt.seq, receipt.session_signature)
                        link.send(line.number, Kind.COUNTERSIGN, answer.pack())
                    self._on_signed(line)
                case Fault(reason=reason):
                    log.warning("%s %s; its bill is not signed", line.peer, reason)
                    if self._book.lines.get(line.peer) is line:
                        self._customer.on_fault(line.peer, reason, True)
        self._closing.look()

    def _on_signed(self, line: Line) -> None:
        bought = self._book.bought
        if bought is None or self._closed or self._book.lines.get(line.peer) is not line or line.cap_units is None:
            return
        if line.cap_units < bought.purchase.most_units:
            self._renewal.look()
        elif line.units > WORN * line.cap_units:
            replay = Extent(self._renewal.extent.rows, line.reach, line.reach)
            if line.meter.units(replay.work) > line.cap_units // 2:
                self._unmetered.add(line.peer)  # another hold would be used up in no time
            self.on_worn(f"{line.peer[-6:]} has used up its line")

    # Called by those who renew the hold

    def on_revised(self, bought: Bought) -> None:
        self._book.hold(bought)
        self._decide(self._tab.cap(bought.hold.hold))
        packed = bought.hold.pack()
        for line in self._book.lines.values():
            if line.terms.hold == bought.hold.hold.id and (link := self._network.present_link(line.peer)):
                link.send(line.number, Kind.HOLD, packed)

    def on_lineless(self, peer: PeerID, reason: str) -> None:
        self._unmetered.add(peer)
        self._customer.on_fault(peer, reason, False)

    def on_worn(self, reason: str) -> None:
        """The hold is of no more use: begin anew under another one."""
        self._is_worn = True
        self._customer.on_worn(reason)

    # The end

    def close(self, number: int) -> None:
        """No step follows."""
        if not self._closed:
            self._closed = True
            self._renewal.close()
            self._closing.end(number)

    async def history(self, peer: PeerID) -> list[Step]:
        """What a node says it has received, if that is what it has billed. Raises SessionError."""
        return await self._closing.history(peer)


def _part(hop: Hop) -> Part:
    return Part(parse_peer_id(hop.peer), hop.start, hop.stop, hop.profile)
