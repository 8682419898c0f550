"""The desk: where a service's sessions and their accounts meet. Without a till nothing is metered."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import PeerID
from nectar_protocol.receipt import SignedReceipt
from nectar_swarm.bills import Countersignature
from nectar_swarm.frames import Kind
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Open, Step
from nectar_swarm.payment import Payment
from nectar_swarm.waiting import first_of

from nectar_node.errors import PaymentError
from nectar_node.scheduler import Work
from nectar_node.session import Session
from nectar_node.till.account import Account
from nectar_node.till.door import Ticket
from nectar_node.till.line import check_size
from nectar_node.till.till import Till

FINAL_S = 2.0
MAX_CLOSING = 4096


class Paid(NamedTuple):
    """An opening that somebody pays for."""

    payment: Payment
    ticket: Ticket

    @property
    def weight(self) -> int:
        return self.ticket.weight


class Desk:
    """`submit` has a work computed, `sessions` are those by number, `link_to` finds a peer's link, `end` ends a session
    and tells its client why.
    """

    def __init__(
        self,
        till: Till | None,
        submit: Callable[[Work], None],
        sessions: Mapping[int, Session],
        link_to: Callable[[PeerID], Link | None],
        end: Callable[[Session, Error | None], None],
    ) -> None:
        self._till = till
        self._submit, self._sessions, self._link_to, self._end = submit, sessions, link_to, end
        self._held: dict[bytes, Session] = {}  # by hold
        self._closing: dict[tuple[PeerID, int], Account] = {}  # of sessions: their final receipts are waited for
        self._settled = asyncio.Event()  # none is waited for

    @property
    def ledger(self) -> bytes:
        """Whose holds are taken; b"" for none."""
        return b"" if self._till is None else self._till.ledger

    # A session's life

    def check(self, link: Link, number: int, request: Open) -> Paid | None:
        """Who pays for a session; None for one that nobody pays for. Raises PaymentError, MalformedError.

        A session that the same peer has open under this hold ends.
        """
        if not request.hold:
            if self._till is not None and not self._till.serves_unmetered:
                raise PaymentError("this node serves only under a hold")
            return None
        if self._till is None:
            raise PaymentError("this node takes no holds")
        payment = Payment.unpack(request.hold)
        hold = payment.hold.hold.id
        other = self._held.get(hold)
        if other is not None and other.owner != link.peer:
            raise PaymentError("a session is open here under this hold")
        ticket = self._till.check(payment, request, link, number)
        if other is not None:
            self._end(other, None)
        for closing, account in list(self._closing.items()):
            if account.hold.hold.id == hold or closing == (link.peer, number):
                account.end()
        return Paid(payment, ticket)

    def enter(self, session: Session, paid: Paid) -> None:
        """Open the account of a session that was let in."""
        assert self._till is not None, "whoever pays has been checked by a till"
        payment, ticket = paid
        hold = ticket.hold.hold
        account = Account(
            ticket.hold,
            ticket.line,
            payment.salt,
            self._till.identity,
            submit=self._submit,
            send=partial(self._send, session),
            keep=self._keep,
            unpaid=lambda why: self._end(session, Error(ErrorCode.UNPAID, why)),
            expired=self._till.has_expired,
        )
        session.account = account
        session.volume = self._till.chronicles.begin(hold.id, hold.session, session.record)
        self._held[hold.id] = session

    def check_step(self, session: Session, step: Step) -> None:
        """Raises StepError for a step that is too large to be paid for."""
        if session.account is not None:
            rows, positions, _ = step.hidden.shape
            check_size(rows, positions)

    def close(self, session: Session) -> None:
        """Its client has closed it: the final bill goes out, and its answer is waited for when the session is gone."""
        account, session.account = session.account, None
        if account is not None:
            self._leave(account)
            if len(self._closing) >= MAX_CLOSING:
                next(iter(self._closing.values())).end()
            self._closing[session.owner, session.number] = account
            self._settled.clear()
            account.close(partial(self._closed, session, account))

    def forget(self, session: Session) -> None:
        """It has ended, whatever it owes."""
        account, session.account = session.account, None
        if account is not None:
            self._leave(account)
            self._note(account)
            account.end()

    def _leave(self, account: Account) -> None:
        self._held.pop(account.hold.hold.id, None)

    def _closed(self, session: Session, account: Account) -> None:
        self._closing.pop((session.owner, session.number), None)
        self._note(account)
        if not self._closing:
            self._settled.set()

    def _note(self, account: Account) -> None:
        if account.owes and self._till is not None:
            self._till.lapsed(account.hold, account.line.unsigned_units)

    # Messages

    def countersign(self, link: Link, number: int, payload: bytes) -> None:
        """Raises PaymentError, MalformedError."""
        answer = Countersignature.unpack(payload)
        account = self._account(link, number)
        if account is not None:
            account.countersign(answer)

    def extend(self, link: Link, number: int, payload: bytes) -> None:
        """A newer revision of a session's hold. Raises PaymentError, MalformedError."""
        hold = SignedHold.unpack(payload)
        account = self._account(link, number)
        if account is not None and self._till is not None:
            newest = self._till.revise(account.hold, hold)
            if newest != account.hold:
                account.extend(newest)

    def ask(self, link: Link, number: int, payload: bytes) -> None:
        """Somebody asks for a session's history. Raises PaymentError, MalformedError."""
        if self._till is None:
            raise PaymentError("this node takes no holds, and has no histories to tell")
        self._till.chronicles.ask(link, number, payload)

    def _account(self, link: Link, number: int) -> Account | None:
        """Of this number, if the session is, or was, this peer's own; others are not answered."""
        session = self._sessions.get(number)
        if session is not None and session.owner == link.peer:
            return session.account
        return self._closing.get((link.peer, number))

    def _send(self, session: Session, kind: Kind, payload: bytes) -> None:
        if owner := self._link_to(session.owner):
            owner.send(session.number, kind, payload)

    def _keep(self, account: Account, receipt: SignedReceipt) -> None:
        if self._till is not None:
            self._till.keep(account.hold, receipt)

    async def stop(self) -> None:
        """The service ends: give those a moment whose final receipts are on their way."""
        if self._closing:
            await first_of(self._settled.wait(), timeout_s=FINAL_S)
        for account in list(self._closing.values()):
            account.end()
