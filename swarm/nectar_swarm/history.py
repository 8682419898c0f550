"""What a peer has sent along a route, kept so that it can be sent again to a replacement.

The history is also the queue: a cursor says how far the present successor has got, and everything that leaves for it
leaves from here, in order. So a step can never overtake the replay that its receiver needs first.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from nectar_swarm.messages import Step

MERGE_TOKENS = 512  # of all rows
MERGE_BYTES = 48 << 20  # sessions of many rows, or of wide models: a message may have 64 MiB

Order = tuple[int, ...]


class Stored(Protocol):
    """Hidden states [batch, tokens, width] that may lie elsewhere than in memory."""

    @property
    def nbytes(self) -> int: ...

    def load(self) -> torch.Tensor: ...


@dataclass(frozen=True)
class InMemory:
    """Hidden states kept as they are."""

    tensor: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    def load(self) -> torch.Tensor:
        return self.tensor


@dataclass(frozen=True)
class Entry:
    """A step whose first `tokens` positions still count; with `rows`, its rows in this order."""

    last: int
    position: int
    tokens: int
    stored: Stored
    rows: Order = ()

    def load(self) -> torch.Tensor:
        hidden = self.stored.load()[:, : self.tokens]
        return hidden[torch.tensor(self.rows)] if self.rows else hidden


@dataclass(frozen=True)
class Joined:
    """Entries that follow each other, as one."""

    entries: tuple[Entry, ...]

    @property
    def last(self) -> int:
        return self.entries[-1].last

    @property
    def position(self) -> int:
        return self.entries[0].position

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self.entries)

    @property
    def nbytes(self) -> int:
        return sum(entry.stored.nbytes for entry in self.entries)

    def load(self) -> torch.Tensor:
        if len(self.entries) == 1:
            return self.entries[0].load()
        return torch.cat([entry.load() for entry in self.entries], 1)


class History:
    """The steps of one session whose positions still count, oldest first.

    `position` is where the next step may begin at most; `last` the newest step's number. `keep` decides where the
    hidden states lie.
    """

    def __init__(self, keep: Callable[[torch.Tensor], Stored] = InMemory) -> None:
        self.entries: list[Entry] = []
        self.position = 0
        self.last = 0
        self._keep = keep
        self._rows = 1
        # By number, of every step that had one: a rollback takes positions away, but leaves the rows as they were put.
        self._orders: list[tuple[int, Order]] = []

    def append(self, step: Step) -> Stored:
        """Add a step; one at an earlier position cuts what it replaces. Returns where its hidden states are kept."""
        self._rows, tokens = step.hidden.shape[:2]
        stored = self._keep(step.hidden)
        if step.position < self.position:
            self._cut(step.position)
        if step.reorder:
            self._orders.append((step.last, step.reorder))
        self.entries.append(Entry(step.last, step.position, tokens, stored))
        self.position = step.position + tokens
        self.last = step.last
        return stored

    def whole(self) -> Iterator[Joined]:
        """All that counts, in the order that the rows have now, merged; nothing is loaded yet."""
        return self._merged(self.entries, self.last)

    def after(self, sent: int, settled: int) -> Iterator[Step]:
        """What a successor that has the steps up to `sent` still needs: all, those after `settled`, or the rest of
        what this gave for the same `settled` before.

        Steps up to `settled` come merged, at most 512 tokens at once, in the order that the rows had by then; newer
        ones as they were. Numbers leave no gap: a step that was rolled back is covered by the next one that stayed.
        """
        settled = min(settled, self.last)
        start = bisect(self.entries, sent, key=lambda entry: entry.last)
        middle = max(start, bisect(self.entries, settled, key=lambda entry: entry.last))
        for part in self._merged(self.entries[start:middle], settled):
            yield Step(sent + 1, part.last, part.position, part.load())
            sent = part.last
        for entry in self.entries[middle:]:
            for step in self._steps_of(entry, max(sent, settled)):
                yield replace(step, first=sent + 1)
                sent = step.last

    def _steps_of(self, entry: Entry, after: int) -> Iterator[Step]:
        """The step, behind the reorders since step `after` whose own positions were rolled back.

        A successor may have done some of them, so each goes by its own number, with a token that the step takes back.
        """
        hidden = entry.load()
        own: Order = ()
        # Where nothing is past, nothing is reordered.
        for last, order in self._orders_of(after, entry.last) if entry.position else ():
            if last == entry.last:
                own = order
            else:
                yield Step(last, last, entry.position, hidden[:, :1], order)
        yield Step(entry.last, entry.last, entry.position, hidden, own)

    def _orders_of(self, after: int, last: int) -> list[tuple[int, Order]]:
        """The reorders of the steps from `after` to `last`, those cut included."""
        start, stop = (bisect(self._orders, number, key=lambda order: order[0]) for number in (after, last))
        return self._orders[start:stop]

    def _merged(self, entries: Sequence[Entry], settled: int) -> Iterator[Joined]:
        """The entries joined, each with its rows in the order that they had after step `settled`."""
        group: list[Entry] = []
        tokens = size = 0
        for entry in self._reordered(entries, settled):
            tokens, size = tokens + entry.tokens, size + entry.stored.nbytes
            if group and (self._rows * tokens > MERGE_TOKENS or size > MERGE_BYTES):
                yield Joined(tuple(group))
                group, tokens, size = [], entry.tokens, entry.stored.nbytes
            group.append(entry)
        if group:
            yield Joined(tuple(group))

    def _reordered(self, entries: Sequence[Entry], settled: int) -> list[Entry]:
        rows: Order = ()
        result, later = [], settled
        for entry in reversed(entries):
            for _, order in reversed(self._orders_of(entry.last, later)):
                rows = tuple(order[row] for row in rows) if rows else order
            result.append(replace(entry, rows=rows) if rows else entry)
            later = entry.last
        return result[::-1]

    def _cut(self, position: int) -> None:
        while self.entries and self.entries[-1].position >= position:
            self.entries.pop()
        if self.entries:
            tail = self.entries[-1]
            self.entries[-1] = replace(tail, tokens=min(tail.tokens, position - tail.position))
