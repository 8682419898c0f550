"""Whose rows run next: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), in batches. Pure bookkeeping, called
by the engine under its lock.

A session that pays is a flow with its weight. What it is granted costs rows × blocks and gets a tag: it starts where
its flow's last grant finished, or at the clock if that is later, and finishes cost / weight after that. The smallest
start goes first, of equal ones the heavier; the clock is the newest start that has run. Short steps and prompts have
their own tags and clocks: each compete for rows of their own.

All sessions that do not pay share what is due to them: a part of whatever those who pay are granted while they wait,
tokens and prompts alike. While something is due they go first, in the order in which they came; what they get is taken
off, and may be taken in advance by one token. What nobody pays for is theirs and not taken off: they would starve later
for having used it.

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

    finish: float
    earliest: float
    batch: int


NEW = _Flow(0.0, 0.0, -RETURN_BATCHES)


class _Batch:
    """An iteration in the making."""

    def __init__(self) -> None:
        self.tokens: dict[Work, int] = {}
        self.rows = self.paid_rows = 0
        self.paid_cost = 0
        self.newest = {True: 0.0, False: 0.0}  # starts of those who pay, of steps and of prompts

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
        self._flows: dict[tuple[Hashable, bool], _Flow] = {}  # that pay, by kind: short ones or prompts
        self._free_due = 0.0  # cost of what those who do not pay may have; less than nothing if they had it already
        self._free_turns = 0
        self._batches = 0  # in which somebody paid
        self._clocks = {True: 0.0, False: 0.0}  # after the last of these batches, of each kind

    @property
    def rows(self) -> int:
        return sum(work.rows for work in (*self._paid, *self._free_short, *self._free_long))

    def short_rows(self, *, paid: bool) -> int:
        short = [work for work in self._paid if work.short]
        return sum(work.rows for work in (short if paid else (*short, *self._free_short)))

    def add(self, work: Work) -> None:
        if work.weight:
            flow = self._flows.get((work.flow, work.short), NEW)
            returns = self._batches - flow.batch < RETURN_BATCHES
            self._paid[work] = max(flow.earliest if returns else self._clocks[work.short], flow.finish)
        else:
            (self._free_short if work.short else self._free_long)[work] = None

    def discard(self, work: Work) -> None:
        self._paid.pop(work, None)
        self._free_short.pop(work, None)
        self._free_long.pop(work, None)

    def forget(self, flow: Hashable) -> None:
        for short in (True, False):
            self._flows.pop((flow, short), None)

    def take(self, prompt_rows: int | None, spare_rows: int = MAX_ROWS) -> list[Grant]:
        batch = _Batch()
        if self._paid:
            self._share(batch, prompt_rows, spare_rows)
        if not self._paid:
            if spare_rows < self._max_rows:
                self._fill_spare(batch, max(batch.paid_rows, 1) + spare_rows)
            else:
                self._fill(batch, prompt_rows)
        return batch.grants

    @property
    def _free_part(self) -> float:
        """What is due to those who do not pay, by what the others are granted."""
        return self.free_share / (1 - self.free_share)

    @property
    def _is_free_waiting(self) -> bool:
        return bool(self._free_short or self._free_long)

    # While somebody pays

    def _share(self, batch: _Batch, prompt_rows: int | None, spare_rows: int) -> None:
        """What is due to the others, and what those who pay get."""
        self._batches += 1
        due = self._free_due
        in_order = sorted(self._paid, key=lambda work: (self._paid[work], -work.weight))
        short, long = ([work for work in in_order if work.short == kind] for kind in (True, False))
        most = self._max_rows - (self._max_rows // PROMPT_SHARE if long else 0)
        self._give_due(batch, most)
        self._share_steps(batch, short, most, spare_rows)
        self._share_prompts(batch, long, prompt_rows)
        self._clocks = {short: max(clock, batch.newest[short]) for short, clock in self._clocks.items()}
        if not self._paid and batch.rows - batch.paid_rows <= spare_rows:
            self._free_due = due  # they took nothing from anybody
        self._free_due += self._free_part * batch.paid_cost
        if not (self._paid and self._is_free_waiting):
            self._free_due = min(self._free_due, 0.0)  # nor did anybody from them

    def _give_due(self, batch: _Batch, most: int) -> None:
        """Tokens of those who do not pay, up to so many rows."""
        while self._free_due >= 0 and (work := self._next_free()):
            if batch.tokens and batch.rows + work.batch > most:
                break
            self._free_due -= _cost(work, 1)
            self._give_free(batch, work, 1)

    def _share_steps(self, batch: _Batch, works: list[Work], most: int, spare_rows: int) -> None:
        fair, alone = _fair_rows(works) + spare_rows, len(works) == 1 and self.rows == works[0].rows
        for work in works:
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
            fitting = min(room, self._max_rows - batch.rows) // work.batch
            tokens = work.left if prompt_rows is None else min(work.left, fitting)
            if tokens <= 0 and work is works[0]:
                tokens = 1  # whoever waits longest gets on, however many rows it has and whoever decodes
            if tokens <= 0:
                break
            room -= tokens * work.batch
            self._charge(batch, work, tokens)

    def _charge(self, batch: _Batch, work: Work, tokens: int) -> None:
        start, cost = self._paid[work], _cost(work, tokens)
        length = cost / work.weight
        batch.newest[work.short] = max(batch.newest[work.short], start)
        batch.paid_cost += cost
        earliest = self._clocks[work.short] - length
        self._flows[work.flow, work.short] = _Flow(start + length, earliest, self._batches)
        self._paid[work] = start + length
        if batch.give(work, tokens):
            del self._paid[work]

    def _next_free(self) -> Work | None:
        """Whoever came first of those who decode, each fourth time of the prompts."""
        self._free_turns += 1
        kinds = [self._free_short, self._free_long]
        if self._free_turns % PROMPT_SHARE == 0:
            kinds.reverse()
        return next(chain(*kinds), None)

    # What nobody pays for

    def _fill_spare(self, batch: _Batch, room: int) -> None:
        """Up to so many rows in all: who pays may be back at any time. Whoever has more in one token waits its turn."""
        kept = room // PROMPT_SHARE if self._free_long else 0
        for work in list(self._free_short):
            left = batch.left(work)
            tokens = min(left, (room - kept - batch.rows) // work.batch)
            if tokens == left or (tokens > 0 and not batch.tokens):
                self._give_free(batch, work, tokens)
        for work in list(self._free_long):
            tokens = min(batch.left(work), (room - batch.rows) // work.batch)
            if tokens > 0:
                self._give_free(batch, work, tokens)
        if not batch.tokens and self._free_due >= 0 and (work_in_turn := self._next_free()):
            self._free_due -= _cost(work_in_turn, 1)
            self._give_free(batch, work_in_turn, 1)

    def _fill(self, batch: _Batch, prompt_rows: int | None) -> None:
        room = self._max_rows - batch.rows
        first = not batch.tokens
        kept = self._max_rows // PROMPT_SHARE if self._free_long else 0
        for work in list(self._free_short):
            tokens = batch.left(work)
            if tokens * work.batch > room - kept and batch.tokens:
                break
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
