"""Keeps a session's hold as long and as large as it needs to be, behind the session's back."""

import asyncio
import logging
import time
from typing import Protocol

from nectar_ledger_client.errors import BusyError, LedgerClientError, RefusedError, UnreachableError
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import Identity, PeerID, PublicKey

from nectar.book import Book
from nectar.caps import Extent, used_up
from nectar.errors import BudgetError, PaymentError
from nectar.purse import Bought, Purse

PATIENCE_S = 8.0  # a node waits two seconds longer for its line
AGAIN_S = 1.0
CALM_S = 5.0  # between two looks at the time that is left
IDLE_S = 900.0  # nodes forget a session that was not used for so long, and we its hold
ENDED = ("hold-expired", "unknown-hold")

log = logging.getLogger(__name__)


class Holder(Protocol):
    """Whose hold it is."""

    def on_revised(self, bought: Bought) -> None:
        """The ledger has signed a later revision."""

    def on_lineless(self, peer: PeerID, reason: str) -> None:
        """A node has no line in the hold and gets none."""

    def on_worn(self, reason: str) -> None:
        """The hold has ended."""


class Renewal:
    """Lives in the connection's loop. `short` is why caps rise no more, once they do not."""

    def __init__(self, book: Book, purse: Purse, key: Identity, holder: Holder) -> None:
        self.short: PaymentError | None = None
        self.extent = Extent(1, 1, 1)
        self._book, self._purse, self._key, self._holder = book, purse, key, holder
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._used_s = time.monotonic()
        self._closed = False

    def used(self) -> None:
        """A step was asked for."""
        self._used_s = time.monotonic()

    def close(self) -> None:
        self._closed = True
        for waiting in (self._timer, self._task):
            if waiting is not None:
                waiting.cancel()

    def watch(self) -> None:
        """Look again when a third of the hold's life is left."""
        if self._timer is not None:
            self._timer.cancel()
        if (bought := self._book.bought) is not None and not self._closed:
            delay_s = max(CALM_S, (self._left_ms(bought) - bought.purchase.policy.hold_life_ms / 3) / 1000)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.look)

    def look(self) -> None:
        """Have the hold extended if anything is wanted of it."""
        bought = self._book.bought
        if self._task is None and bought is not None and not self._closed:
            if self._is_due(bought):
                self._task = asyncio.get_running_loop().create_task(self._extend())
            else:
                self.watch()

    def _left_ms(self, bought: Bought) -> int:
        return bought.hold.hold.expires_ms - self._purse.ledger.now_ms

    def _is_due(self, bought: Bought) -> bool:
        is_used = time.monotonic() - self._used_s < IDLE_S
        is_old = self._left_ms(bought) < bought.purchase.policy.hold_life_ms / 3
        return bool(self._wanted(bought)) or (is_old and is_used)

    def _wanted(self, bought: Bought) -> dict[PublicKey, int]:
        """New lines and higher caps, as far as they can rise."""
        if self.short is not None:
            return {}
        hold, purchase = bought.hold.hold, bought.purchase
        own = {line.terms.server: line for line in self._book.lines.values() if line.terms.hold == hold.id}
        caps = {line.server: line.cap_units for line in hold.lines}
        wanted = used_up({server: line.units for server, line in own.items()}, hold.lines)
        wanted |= {
            server: purchase.wanted(line.meter, self.extent) for server, line in own.items() if server not in caps
        }
        can_rise = (server for server, cap in wanted.items() if min(cap, purchase.most_units) > caps.get(server, 0))
        return {server: wanted[server] for server in can_rise if self._purse.ledger.may_be_bound(server)}

    async def _extend(self) -> None:
        """Until nothing more is wanted, or to be had."""
        since_s = time.monotonic()
        try:
            while (bought := self._book.bought) is not None and self._is_due(bought):
                try:
                    await self._revise(bought)
                    since_s = time.monotonic()
                except (UnreachableError, BusyError) as error:
                    self._purse.ledger.went_down()
                    self._purse.warn("the ledger does not answer; sessions go on under the holds that they have", error)
                    if time.monotonic() - since_s >= PATIENCE_S:
                        self._drop_lineless(f"cannot be paid: {error}")
                        break
                    await asyncio.sleep(AGAIN_S)
                except (LedgerClientError, ProtocolError, PaymentError) as error:
                    self._fail(error)
                    break
        finally:
            self._task = None
            self.watch()

    async def _revise(self, bought: Bought) -> None:
        wanted = self._wanted(bought)
        revised = await self._purse.extend(bought, self._key, wanted)
        self._holder.on_revised(revised)
        self._drop_unbound()
        if self._wanted(revised) and revised.hold.hold.lines == bought.hold.hold.lines:
            raise BudgetError("the session has set its whole budget aside: open it with a larger one")

    def _fail(self, error: Exception) -> None:
        if isinstance(error, RefusedError) and error.code in ENDED:
            self._holder.on_worn(str(error))
            return
        self.short = error if isinstance(error, PaymentError) else PaymentError(f"its hold cannot grow: {error}")
        log.warning("session: %s", error)
        self._drop_lineless(str(error))

    def _drop_unbound(self) -> None:
        """The ledger takes no line for a node that earns for nobody."""
        for peer, line in list(self._book.lines.items()):
            if line.cap_units is None and not self._purse.ledger.may_be_bound(line.terms.server):
                self._holder.on_lineless(peer, "is not bound to an account that it earns for")

    def _drop_lineless(self, reason: str) -> None:
        for peer in [peer for peer, line in self._book.lines.items() if line.cap_units is None]:
            self._holder.on_lineless(peer, reason)
