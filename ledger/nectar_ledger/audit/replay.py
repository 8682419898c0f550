"""A log once more through the core: every rule is checked again, and every row comes out as it should be."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.state import State
from nectar_ledger.errors import InvariantError, ReplayError
from nectar_ledger.store.scan import Part

RowsByTable = dict[str, list[Any]]  # rows, whole


class Replay:
    """`public`: as anybody can, without sealed parts; nothing is then known of purses."""

    def __init__(self, public: bool = False) -> None:
        self.ledger = Ledger(State(public))

    @property
    def state(self) -> State:
        return self.ledger.state

    def take(self, part: Part) -> None:
        """Apply entries. Raises ReplayError for the first that breaks a rule; the ledger is then of no more use."""
        apply, sealed_of, index = self.ledger.apply, part.sealed.get, part.start
        try:
            with no_garbage():
                for index, entry in enumerate(part.entries, part.start):
                    apply(index, entry, sealed_of(index))
        except InvariantError as error:
            raise ReplayError(index, str(error)) from error

    def take_rows(self) -> RowsByTable:
        """What the entries since the last time have added and changed."""
        tables: RowsByTable = {}
        for name, row in self.ledger.take_rows():
            tables.setdefault(name, []).append(row)
        return tables


def replay(parts: Iterable[Part], public: bool = False) -> Ledger:
    """The ledger at the end of a log. Raises ReplayError."""
    replayed = Replay(public)
    for part in parts:
        replayed.take(part)
        for _ in replayed.ledger.take_rows():
            pass
    return replayed.ledger


@contextmanager
def no_garbage() -> Iterator[None]:
    """Within it nobody looks for garbage: what entries make stays, and Python would look through it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
