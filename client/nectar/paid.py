"""A session under a hold: the same steps, in pieces that nodes do before they are signed for, and who pays for them."""

from dataclasses import replace
from typing import Any

from nectar_protocol.identity import PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Step

from nectar.caps import PAID_TOKENS, Extent
from nectar.connection import Connection
from nectar.errors import PaymentError
from nectar.payer import Payer
from nectar.purse import Purse
from nectar.route import Hop
from nectar.session import Session
from nectar.spent import Spent


class PaidSession(Session):
    """Where nobody takes its holds it is as any other."""

    def __init__(
        self, connection: Connection, *arguments: Any, purse: Purse, weight: int = 0, budget_ucr: int, **options: Any
    ) -> None:
        super().__init__(connection, *arguments, **options)
        self._payer = Payer(connection, self, purse, self._model, weight, budget_ucr)
        self._prompt = 0  # tokens of a row in the first step

    @property
    def spent(self) -> Spent:
        return self._payer.spent

    def history(self, peer: PeerID) -> list[Step]:
        """What a node says it has received, if that is what it has billed; also for two minutes after the session was
        closed. Raises SessionError.
        """
        return self._connection.run(self._payer.history(peer))

    def step(self, hidden: Any, *arguments: Any, **options: Any) -> Any:
        self._prompt = self._prompt or hidden.shape[1]
        return super().step(hidden, *arguments, **options)

    def _most_positions(self, batch: int, vector_bytes: int) -> int:
        return min(super()._most_positions(batch, vector_bytes), PAID_TOKENS // batch)

    # In the loop

    def _before(self, step: Step) -> PaymentError | None:
        return self._payer.asked(step)

    def _after(self, step: Step, hop: Hop, payload: bytes) -> None:
        self._payer.answered(step, hop.peer, payload)

    def opening(self, hop: Hop, place: Neighbours) -> Open:
        request = super().opening(hop, place)
        return replace(request, hold=self._payer.payment(hop, request, self._keeper.number))

    async def prepare(self) -> None:
        extent = Extent(len(self.pads or (0,)), self.max_length, self._prompt)
        await self._payer.prepare(self._keeper.route.hops, extent)

    def on_renumbered(self, before: int) -> None:
        self._payer.left(before)

    def on_placed(self) -> None:
        self._payer.placed(self._keeper.route.hops, self._keeper.route.settled)
        super().on_placed()

    def on_message(self, link: Link, kind: Kind, payload: bytes) -> None:
        if not self._payer.on_message(self._keeper.number, link, kind, payload):
            super().on_message(link, kind, payload)

    def _on_error(self, hop: Hop, error: Error) -> None:
        is_refusal = error.code is ErrorCode.UNPAID or (error.code is ErrorCode.DENIED and error.generation)
        short = self._payer.on_refusal(hop, error.code) if is_refusal else None
        super()._on_error(hop, error)
        if short is not None:
            self._end_step(short)

    def abandon(self) -> None:
        super().abandon()
        self._payer.close(self._keeper.number)

    # Called by the payer

    def on_fault(self, peer: PeerID, reason: str, aside: bool) -> None:
        hop = self._keeper.route.hop(peer)
        if hop is not None and not hop.failed and not self._closed:
            self._keeper.fail(hop, reason, aside=aside)

    def on_worn(self, reason: str) -> None:
        if not self._closed:
            self._keeper.restart(reason)
