"""Whose rows run next: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), in batches. Pure bookkeeping, called
by the engine under its lock.

A session that pays is a flow with its weight. What it is granted costs rows × blocks and gets a tag: it starts where
its flow's last grant finished, or at the clock if that is later, and finishes cost / weight after that. The smallest
start goes first; the clock is the newest start that has run. All sessions that do not pay are together one flow, with
a share of what is computed while others wait; among themselves they are served as they come. What nobody pays for is
theirs and not charged: they would starve later for having used it.

Single tokens and short verifications go first, so that nobody's next token waits behind somebody's prompt. Prompts,
and replays with them, fill what is left, chunk by chunk.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import chain

from nectar_node.scheduler import MAX_ROWS, PROMPT_SHARE, Grant, Work

FREE_SHARE = 0.1
RETURN_BATCHES = 2  # within so many, a session that was served is taken to have waited all along


@dataclass(frozen=True)
class _Flow:
    """A session that pays, as its last grant left it: where that finished, and in which batch it was.

    A session's next step cannot wait while its last one runs. If it comes at once, it starts no later than it would
    have: at what was the clock before that batch, less the grant's own length.
    """

    weight: int
    finish: float
    earliest: float
    batch: int


NEW = _Flow(0, 0.0, 0.0, -RETURN_BATCHES)


class _Batch:
    """An iteration in the making."""

    def __init__(self) -> None:
        self.tokens: dict[Work, int] = {}
        self.rows = self.paid_rows = 0
        self.newest = 0.0  # start of what had to compete: of prompts, if there are any

    def give(self, work: Work, tokens: int) -> bool:
        """So many more tokens of a work; True if that is all of it."""
        self.tokens[work] = self.tokens.get(work, 0) + tokens
        rows = work.batch * tokens
        self.rows += rows
        self.paid_rows += rows if work.weight else 0
        return self.tokens[work] == work.left

    def left(self, work: Work) -> int:
        """Tokens of a work that are not given yet."""
        return work.left - self.tokens.get(work, 0)

    @property
    def has_prompts(self) -> bool:
        return any(not work.short for work in self.tokens)

    @property
    def grants(self) -> list[Grant]:
        return [Grant(work, tokens) for work, tokens in self.tokens.items()]


class FairQueue:
    """`free_share`, between 0 and 1, is for all who do not pay. An iteration has `max_rows`, or a single step that has
    more."""

    def __init__(self, free_share: float = FREE_SHARE, max_rows: int = MAX_ROWS) -> None:
        self.free_share = free_share
        self._max_rows = max_rows
        self._paid: dict[Work, float] = {}  # those that wait and where they start
        self._free_short: dict[Work, None] = {}
        self._free_long: dict[Work, None] = {}
        self._flows: dict[Hashable, _Flow] = {}  # that pay; whoever was served last comes last
        self._free_finish = 0.0
        self._free_turns = 0
        self._batches = 0  # in which somebody paid
        self._clock = self._before = 0.0  # after the last of these batches, and before it

    @property
    def rows(self) -> int:
        return sum(work.rows for work in (*self._paid, *self._free_short, *self._free_long))

    def short_rows(self, *, paid: bool) -> int:
        short = [work for work in self._paid if work.short]
        return sum(work.rows for work in (short if paid else (*short, *self._free_short)))

    def add(self, work: Work) -> None:
        if work.weight:
            flow = self._flows.get(work.flow, NEW)
            returns = self._batches - flow.batch < RETURN_BATCHES
            self._paid[work] = max(flow.earliest if returns else self._clock, flow.finish)
        else:
            (self._free_short if work.short else self._free_long)[work] = None

    def discard(self, work: Work) -> None:
        self._paid.pop(work, None)
        self._free_short.pop(work, None)
        self._free_long.pop(work, None)

    def forget(self, flow: Hashable) -> None:
        self._flows.pop(flow, None)

    def take(self, prompt_rows: int | None, spare_rows: int = MAX_ROWS) -> list[Grant]:
        batch, free_finish = _Batch(), self._free_finish
        if self._paid:
            self._share(batch, prompt_rows, spare_rows)
        if not self._paid:
            if batch.rows - batch.paid_rows <= spare_rows:
                self._free_finish = free_finish  # they took nothing from anybody
            self._fill(batch, prompt_rows, min(self._max_rows, max(batch.paid_rows, 1) + spare_rows))
        return batch.grants

    # While somebody pays

    def _share(self, batch: _Batch, prompt_rows: int | None, spare_rows: int) -> None:
        """What those who pay get, and what the others do when it is their turn."""
        self._batches += 1
        in_order = sorted(self._paid, key=self._paid.__getitem__)
        short, long = ([work for work in in_order if work.short == kind] for kind in (True, False))
        self._free_finish = max(self._free_finish, self._before)
        self._share_steps(batch, short, self._paid[long[0]] if long else math.inf, spare_rows)
        if long:
            batch.newest = 0.0
            self._share_prompts(batch, long, prompt_rows)
        self._before, self._clock = self._clock, max(self._clock, batch.newest)

    def _share_steps(self, batch: _Batch, works: list[Work], until: float, spare_rows: int) -> None:
        """Those who do not pay must not get ahead of the first prompt either, which starts at `until`."""
        most = self._max_rows - (self._max_rows // PROMPT_SHARE if until < math.inf else 0)
        fair, alone = _fair_rows(works) + spare_rows, len(works) == 1 and self.rows == works[0].rows
        for work in works:
            self._charge_free(batch, min(until, self._paid[work]), most)
            room = min(most - batch.rows, fair - batch.paid_rows)
            tokens = work.left
            if tokens * work.batch > room and not alone:
                tokens = 0 if batch.tokens else max(1, room // work.batch)  # a part of what nothing can go before
            if not tokens:
                break
            self._charge(batch, work, tokens)

    def _share_prompts(self, batch: _Batch, works: list[Work], prompt_rows: int | None) -> None:
        room = self._max_rows if prompt_rows is None else prompt_rows
        for work in works:
            self._charge_free(batch, self._paid[work], self._max_rows)
            fitting = min(room, self._max_rows - batch.rows) // work.batch
            tokens = work.left if prompt_rows is None else min(work.left, fitting)
            if tokens <= 0 and work is works[0]:
                tokens = 1  # whoever waits longest gets on, however many rows it has and whoever decodes
            if tokens <= 0:
                break
            room -= tokens * work.batch
            self._charge(batch, work, tokens)

    def _charge(self, batch: _Batch, work: Work, tokens: int) -> None:
        start, length = self._paid[work], _cost(work, tokens) / work.weight
        batch.newest = max(batch.newest, start)
        self._flows.pop(work.flow, None)
        self._flows[work.flow] = _Flow(work.weight, start + length, self._clock - length, self._batches)
        self._paid[work] = start + length
        if batch.give(work, tokens):
            del self._paid[work]

    def _charge_free(self, batch: _Batch, until: float, most: int) -> None:
        """Tokens of those who do not pay, as long as they start no later than `until`."""
        weight = 0.0
        while self._free_finish <= until and (work := self._next_free()):
            if batch.tokens and batch.rows + work.batch > most:
                break
            weight = weight or self._free_weight()
            batch.newest = max(batch.newest, self._free_finish)
            self._free_finish += _cost(work, 1) / weight
            self._give_free(batch, work, 1)

    def _free_weight(self) -> float:
        """What gives all who do not pay their share beside those who wait, or were just served and will be back."""
        weights: dict[Hashable, int] = {work.flow: work.weight for work in self._paid}
        for key, flow in reversed(self._flows.items()):
            if self._batches - flow.batch > RETURN_BATCHES:
                break
            weights[key] = flow.weight
        return self.free_share / (1 - self.free_share) * sum(weights.values())

    def _next_free(self) -> Work | None:
        """Whoever came first of those who decode, each fourth time of the prompts."""
        self._free_turns += 1
        kinds = [self._free_short, self._free_long]
        if self._free_turns % PROMPT_SHARE == 0:
            kinds.reverse()
        return next(chain(*kinds), None)

    # What nobody pays for

    def _fill(self, batch: _Batch, prompt_rows: int | None, room: int) -> None:
        bounded = room < self._max_rows
        first = not batch.tokens
        kept = math.ceil(room / PROMPT_SHARE) if self._free_long else 0
        room -= batch.rows
        for work in list(self._free_short):
            tokens = batch.left(work)
            if tokens * work.batch > room - kept and batch.tokens:
                break
            if bounded and tokens * work.batch > room - kept:
                tokens = max(1, (room - kept) // work.batch)
            room -= tokens * work.batch
            self._give_free(batch, work, tokens)
        if prompt_rows is not None:
            room = min(room, prompt_rows)
        for work in list(self._free_long):
            left = batch.left(work)
            tokens = left if prompt_rows is None else min(left, room // work.batch)
            if tokens <= 0 and first and not batch.has_prompts:
                tokens = 1  # whoever waits longest gets on, however many rows it has and whoever decodes
            if tokens <= 0:
                break
            room -= tokens * work.batch
            self._give_free(batch, work, tokens)

    def _give_free(self, batch: _Batch, work: Work, tokens: int) -> None:
        if batch.give(work, tokens):
            self.discard(work)


def _cost(work: Work, tokens: int) -> int:
    return work.batch * tokens * (work.kv.stop - work.kv.start)


def _fair_rows(works: list[Work]) -> int:
    """As many rows as are fair in an iteration: all of the heaviest steps, and of others what is due by weight."""
    top = max((work.weight for work in works), default=1)
    return math.ceil(sum(work.rows * work.weight for work in works) / top)
