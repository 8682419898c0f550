"""Rules of the product, switched off: a threat's test that does not notice proves nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from nectar_ledger.core import batching, holding
from nectar_ledger.core.node import Batch
from nectar_ledger.core.parties import Purse
from nectar_ledger.core.state import State
from nectar_protocol.commands import Outcome, Verdict
from nectar_protocol.entries import BatchOutcome

Reading = Callable[[Batch, Verdict], Outcome]


def without_purse_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds draw on the pool whatever is in their purses."""

    def move(purse: Purse, amount_ucr: int) -> None:
        purse.credits += amount_ucr

    monkeypatch.setattr(holding, "_check_purse", lambda purse, amount_ucr, opens: None)
    monkeypatch.setattr(Purse, "move", move)


def reading_verdicts(monkeypatch: pytest.MonkeyPatch, reading: Reading) -> None:
    """Batches close as if their verdicts were what `reading` makes of them."""
    outcome = batching._outcome

    def read(state: State, batch: Batch, verdicts: Sequence[Verdict], now_ms: int) -> BatchOutcome | None:
        changed = [replace(verdict, outcome=reading(batch, verdict)) for verdict in verdicts]
        return outcome(state, batch, changed, now_ms)

    monkeypatch.setattr(batching, "_outcome", read)
