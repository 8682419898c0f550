"""What a peer has sent along a route, kept so that it can be sent again to a replacement.

The history is also the queue: a cursor says how far the present successor has got, and everything that leaves for it
leaves from here, in order. So a step can never overtake the replay that its receiver needs first.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from nectar_swarm.messages import Step

MERGE_TOKENS = 512
MERGE_BYTES = 48 << 20  # sessions of many rows, or of wide models: a message may have 64 MiB

Order = tuple[int, ...]


class History:
    """The steps of one session whose positions still count, oldest first.

    `position` is where the next step may begin at most; `last` the newest step's number.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.position = 0
        self.last = 0
        # By number, of every step that had one: a rollback takes positions away, but leaves the rows as they were put.
        self._orders: list[tuple[int, Order]] = []

    def append(self, step: Step) -> None:
        """Add a step; one at an earlier position cuts what it replaces."""
        if step.position < self.position:
            self._cut(step.position)
        if step.reorder:
            self._orders.append((step.last, step.reorder))
        self.steps.append(step)
        self.position = step.position + step.hidden.shape[1]
        self.last = step.last

    def after(self, sent: int, settled: int) -> Iterator[Step]:
        """What a successor that has the steps up to `sent` still needs: all, those after `settled`, or the rest of
        what this gave for the same `settled` before.

        Steps up to `settled` come merged, at most 512 tokens at once, in the order that the rows had by then; newer
        ones as they were. Numbers leave no gap: a step that was rolled back is covered by the next one that stayed.
        """
        settled = min(settled, self.last)
        start = bisect(self.steps, sent, key=lambda step: step.last)
        middle = max(start, bisect(self.steps, settled, key=lambda step: step.last))
        for step in _merged(self._reordered(self.steps[start:middle], settled)):
            yield replace(step, first=sent + 1, reorder=())
            sent = step.last
        for step in self.steps[middle:]:
            for cut in self._cut_reorders(step, max(sent, settled)):
                yield replace(cut, first=sent + 1)
                sent = cut.last
            order = step.reorder if step.position else ()  # where nothing is past, nothing is reordered
            yield replace(step, first=sent + 1, reorder=order)
            sent = step.last

    def _cut_reorders(self, step: Step, after: int) -> Iterator[Step]:
        """The reorders between step `after` and this one whose own positions were rolled back since.

        A successor may have done some of them, so each goes by its own number, with a token that the step takes back.
        """
        if step.position:
            for last, order in self._orders_of(after, step.last - 1):
                yield replace(step, last=last, hidden=step.hidden[:, :1], reorder=order)

    def _orders_of(self, after: int, last: int) -> list[tuple[int, Order]]:
        """The reorders of the steps from `after` to `last`, those cut included."""
        start, stop = (bisect(self._orders, number, key=lambda order: order[0]) for number in (after, last))
        return self._orders[start:stop]

    def _reordered(self, steps: Sequence[Step], settled: int) -> list[Step]:
        """The steps with their rows in the order that they had after step `settled`."""
        rows: torch.Tensor | None = None
        result, later = [], settled
        for step in reversed(steps):
            for _, order in reversed(self._orders_of(step.last, later)):
                rows = torch.tensor(order) if rows is None else torch.tensor(order)[rows]
            result.append(step if rows is None else replace(step, hidden=step.hidden[rows]))
            later = step.last
        return result[::-1]

    def _cut(self, position: int) -> None:
        while self.steps and self.steps[-1].position >= position:
            self.steps.pop()
        if self.steps:
            tail = self.steps[-1]
            # A copy, so that the cut part's memory is given back.
            self.steps[-1] = replace(tail, hidden=tail.hidden[:, : position - tail.position].clone())


def _merged(steps: Sequence[Step]) -> Iterator[Step]:
    group: list[Step] = []
    tokens = size = 0
    for step in steps:
        tokens, size = tokens + step.hidden.shape[1], size + step.hidden.nbytes
        if group and (tokens > MERGE_TOKENS or size > MERGE_BYTES):
            yield _merge(group)
            group, tokens, size = [], step.hidden.shape[1], step.hidden.nbytes
        group.append(step)
    if group:
        yield _merge(group)


def _merge(group: Sequence[Step]) -> Step:
    if len(group) == 1:
        return group[0]
    return replace(
        group[-1],
        first=group[0].first,
        position=group[0].position,
        hidden=torch.cat([s.hidden for s in group], 1),
    )
