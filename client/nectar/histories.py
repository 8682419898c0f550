"""Asks nodes what they received in a session: on request, and now and then so that a question gives no auditor away."""

import asyncio
import contextlib
import logging
import random
from typing import Protocol

from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.opening import HistoryRequest
from nectar_protocol.policy import Swarm
from nectar_swarm.frames import Kind
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Step
from nectar_swarm.past import HistoryCall, Past

from nectar.book import Book
from nectar.errors import SessionError
from nectar.inquiry import Inquiry, WrongPastError
from nectar.purse import Purse

PATIENCE_S = 30.0
REFUSALS = (ErrorCode.DENIED, ErrorCode.FAILED, ErrorCode.MALFORMED)
COVER = 1 / 20  # of the sessions in an open swarm

log = logging.getLogger(__name__)


class Linked(Protocol):
    def present_link(self, peer: PeerID) -> Link | None: ...


class Histories:
    """Of one session, whose `key` asks. Lives in the connection's loop."""

    def __init__(self, network: Linked, book: Book, purse: Purse, key: Identity) -> None:
        self._network, self._book, self._purse, self._key = network, book, purse, key
        self._asked: dict[PeerID, tuple[Inquiry, asyncio.Future[None]]] = {}

    async def ask(self, peer: PeerID, keep: bool = True) -> list[Step]:
        """What a node says it has received, if that is what it has billed. Raises SessionError."""
        line, link = self._book.line(peer), self._network.present_link(peer)
        if line is None or link is None or peer in self._asked:
            raise SessionError(f"{peer} cannot be asked for a history: it has no line here, is gone, or was asked")
        policy = self._purse.ledger.policy
        until_ms = self._purse.ledger.now_ms + (policy.history_ms if policy else 0)
        request = HistoryRequest(line.terms.server, line.terms.hold, self._key.public, until_ms)
        inquiry, told = Inquiry(line, keep), asyncio.get_running_loop().create_future()
        self._asked[peer] = inquiry, told
        try:
            link.send(line.number, Kind.HISTORY, HistoryCall(request, request.sign(self._key)).pack())
            async with asyncio.timeout(PATIENCE_S):
                await told
        except TimeoutError as error:
            raise SessionError(f"{peer} has not shown its history within {PATIENCE_S:g} s") from error
        finally:
            del self._asked[peer]
        return inquiry.steps

    async def cover(self) -> None:
        """Ask one node now and then, as an auditor would."""
        policy = self._purse.ledger.policy
        is_open = policy is not None and policy.swarm is Swarm.OPEN
        if not (is_open and self._purse.cover and self._book.peers) or random.random() >= COVER:
            return
        try:
            await self.ask(random.choice(self._book.peers), keep=False)
        except SessionError as error:
            log.warning("%s", error)

    def on_past(self, peer: PeerID, payload: bytes) -> None:
        if peer not in self._asked:
            return
        inquiry, told = self._asked[peer]
        try:
            inquiry.take(Past.unpack(payload))
        except (MalformedError, WrongPastError) as error:
            self._end(peer, SessionError(f"{peer} shows another history than it has billed: {error}"))
            return
        if inquiry.done and not told.done():
            told.set_result(None)

    def on_error(self, link: Link, payload: bytes) -> bool:
        """Is this the refusal of a history? Steps are refused as well, but seldom, and not by who is asked for one."""
        if link.peer not in self._asked:
            return False
        with contextlib.suppress(MalformedError):
            error = Error.unpack(payload, link.version)
            if error.code in REFUSALS and not error.generation:
                self._end(link.peer, SessionError(f"{link.peer} shows no history: {error.text}"))
                return True
        return False

    def _end(self, peer: PeerID, error: SessionError) -> None:
        _, told = self._asked[peer]
        if not told.done():
            told.set_exception(error)
