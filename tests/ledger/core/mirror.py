"""The tables of a ledger in memory, and its state as plain values: what must be equal where two states are."""

from collections.abc import Iterable, Iterator
from typing import Any

from nectar_ledger.core.hold import HoldLine
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.machine import Draft, Row
from nectar_ledger.core.node import BatchState, Node
from nectar_ledger.core.state import State
from nectar_ledger.store.schema import ADDED_ONLY, commands
from nectar_ledger.store.tables import TABLES

KEY_SIZES = {table.name: len(table.primary_key) for table in (*TABLES, commands)}
ONLY_ADDED = {table.name for table in (*TABLES, commands) if ADDED_ONLY.items() <= table.info.items()}


class Mirror:
    """What the rows that a ledger gave amount to."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Row, Row]] = {name: {} for name in KEY_SIZES}

    def take(self, ledger: Ledger) -> None:
        for name, row in ledger.take_rows():
            key = row[: KEY_SIZES[name]]
            assert name not in ONLY_ADDED or key not in self.tables[name], f"{name} {key} was added already"
            self.tables[name][key] = row

    def rows(self, name: str) -> list[Row]:
        return [row for _, row in sorted(self.tables[name].items())]

    def live(self, name: str) -> Iterator[Any]:
        """Those that a store reads when it opens the ledger again."""
        open_holds = {row[0] for row in self.rows("holds") if row[-1] is None}
        open_batches = {row[0] for row in self.rows("batches") if row[-2] == BatchState.OPEN}
        for row in self.rows(name):
            match name:
                case "accounts" | "holds":
                    counts = row[-1] is None
                case "hold_lines":
                    counts = row[0] in open_holds
                case "batches":
                    counts = row[0] in open_batches
                case "verdicts":
                    counts = row[1] in open_batches
                case _:
                    counts = True
            if counts:
                yield row

    def load(self, size: int, time_ms: int) -> State:
        return load(self.live, size, time_ms)


def mirrored(drafts: Iterable[Draft]) -> Mirror:
    """Replayed, with rows taken only at the end."""
    ledger, mirror = Ledger(State()), Mirror()
    for index, draft in enumerate(drafts):
        ledger.apply(index, draft.entry, draft.sealed)
    mirror.take(ledger)
    return mirror


def picture(state: State) -> dict[str, object]:
    """All that a state knows. The order in which it learned it does not count."""
    return {
        "books": state.books and state.books.row(),
        "log": (state.index, state.time_ms),
        "accounts": {id: account.row() for id, account in state.accounts.items()},
        "wallets": {key: account.id for key, account in state.wallets.items()},
        "purses": {id: purse.row() for id, purse in state.purses.items()},
        "nodes": {key: _node(node) for key, node in state.nodes.items()},
        "keys": {key: kept.row() for key, kept in state.keys.items()},
        "policies": (set(state.policies), state.policy),
        "models": (state.models, state.newest_models),
        "holds": {
            id: (live.hold, live.row(), live.model, live.policy, {key: _line(line) for key, line in live.lines.items()})
            for id, live in state.holds.items()
        },
        "batches": {id: (batch.row(), batch.policy, batch.verdicts) for id, batch in state.batches.items()},
        "seals": state.seals,
        "shares": state.shares,
        "outages": state.outages,
        "expiring": {minute: set(holds) for minute, holds in state.expiring.items()},
    }  # fmt: skip


def _node(node: Node) -> tuple[object, ...]:
    return (*node.row(), {model: batch.account.id for model, batch in node.batches.items()})


def _line(line: HoldLine) -> tuple[object, ...]:
    return (*line.row(), line.start, line.stop, line.profile, line.work)
