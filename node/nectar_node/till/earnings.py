"""What a node has served and earned: by its own file, and by what its ledger says in public."""

from dataclasses import asdict, dataclass
from typing import Any

from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.errors import RefusedError
from nectar_protocol.identity import PublicKey

from nectar_node.till.spool import Spool, State

RELEASED, BURNED = "released", "burned"


@dataclass(frozen=True)
class Served:
    """By the node's own file, of all sessions under holds. `unposted` receipts are not in the ledger's log for certain
    yet; `refused` are those that the ledger would not take, with its reasons.
    """

    sessions: int
    units: int
    tokens: int
    earned_ucr: int
    unposted: int
    unposted_ucr: int
    refused: tuple[str, ...]

    @classmethod
    def of(cls, spool: Spool) -> "Served":
        totals = spool.totals()
        waiting = [*spool.of(State.KEPT), *spool.of(State.POSTED)]
        return cls(
            totals["lines"],
            totals["units"],
            totals["tokens"],
            totals["paid_ucr"],
            len(waiting),
            sum(kept.paid_ucr for kept in waiting),
            tuple(kept.reason for kept in spool.of(State.REFUSED)),
        )


@dataclass(frozen=True)
class Paid:
    """By the ledger: what waits in the node's open batches, and what became of those that are closed."""

    payee: PublicKey | None
    pending_ucr: int = 0
    released_ucr: int = 0
    burned_ucr: int = 0

    @classmethod
    def ask(cls, client: LedgerClient, node: PublicKey) -> "Paid":
        """Raises LedgerClientError."""
        try:
            view = client.node(node)
        except RefusedError as error:
            if not error.is_not_found:
                raise
            return cls(None)
        closed = {RELEASED: 0, BURNED: 0}
        for batch in client.batches_of(node):
            if batch.state in closed:
                closed[batch.state] += batch.earned_ucr
        return cls(view.payee, view.pending_ucr, closed[RELEASED], closed[BURNED])

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"payee": None if self.payee is None else self.payee.hex()}
