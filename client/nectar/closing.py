"""The end of a session that was paid for: its last bills are signed and settled, behind everybody's back."""

import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Protocol

from nectar_ledger_client.errors import LedgerClientError
from nectar_protocol.identity import Identity, PeerID
from nectar_swarm.link import Link
from nectar_swarm.messages import Step

from nectar.book import Book
from nectar.farewell import Farewell, Heir
from nectar.histories import Histories
from nectar.purse import Bought, Purse

log = logging.getLogger(__name__)


class Lingering(Protocol):
    """A connection on which something is still heard for sessions that have ended."""

    def present_link(self, peer: PeerID) -> Link | None: ...

    def hand_over(self, number: int, listener: Farewell) -> None: ...

    def remove(self, number: int) -> None: ...

    def linger(self, work: Coroutine[Any, Any, None]) -> None: ...


class Closing:
    """Of one session; `heir` takes what still comes. Lives in the connection's loop."""

    def __init__(
        self, network: Lingering, heir: Heir, book: Book, purse: Purse, key: Identity, histories: Histories
    ) -> None:
        self._network, self._heir, self._book = network, heir, book
        self._purse, self._key, self._histories = purse, key, histories
        self._farewells: dict[int, Farewell] = {}  # by number
        self._ears: Counter[int] = Counter()  # how many listen for it

    def look(self) -> None:
        """Something was decided."""
        for farewell in self._farewells.values():
            farewell.look()

    def end(self, number: int) -> None:
        """The session, by its last number, has been closed on all nodes."""
        if self._book.holds:
            self.await_finals(number)
            self._network.linger(self._part())

    def await_finals(self, number: int) -> None:
        """Under this number, nodes were told to close."""
        self._farewells[number] = Farewell(number, self._heir, self._book, self._network.present_link)
        self._listen(number)

    async def history(self, peer: PeerID) -> list[Step]:
        """What a node says it has received, if that is what it has billed. Raises SessionError."""
        line = self._book.line(peer)
        if line is None or line.number not in self._farewells:
            return await self._histories.ask(peer)
        self._listen(line.number)
        try:
            return await self._histories.ask(peer)
        finally:
            self._hear_no_more(line.number)

    def _listen(self, number: int) -> None:
        self._ears[number] += 1
        self._network.hand_over(number, self._farewells[number])

    def _hear_no_more(self, number: int) -> None:
        self._ears[number] -= 1
        if not self._ears[number]:
            self._network.remove(number)

    async def _part(self) -> None:
        """Sign the last bills, settle them, and now and then ask for a history."""
        for farewell in self._farewells.values():
            await farewell.wait()
        for bought in self._book.holds:
            await self._settle(bought)
        await self._histories.cover()
        for number in self._farewells:
            self._hear_no_more(number)

    async def _settle(self, bought: Bought) -> None:
        """What final receipts leave goes back at once. A free hold has set nothing aside."""
        hold = bought.hold.hold
        if not hold.weight or not (finals := self._book.finals(hold.id)):
            return
        is_whole = {line.server for line in hold.lines} <= {final.receipt.server for final in finals}
        try:
            await self._purse.close(self._key, bought.hold, finals, is_whole)
        except LedgerClientError as error:
            log.info("what a session has left comes back when its hold has expired: %s", error)
