"""The compute thread: it alone touches the model, one iteration after the other.

loop: `submit(work)`  ->  thread: what the scheduler takes, in one forward  ->  loop: `deliver(work, output or error)`

A session's works run in the order in which they came, the end of a replay together with the step behind it. Where one
fails, only its session does.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice

import torch

from nectar_node.attendance import Attendance
from nectar_node.fairqueue import FairQueue
from nectar_node.pieces import Result, all_shares, groups_of, piece_of, shares_of
from nectar_node.runner import Piece, Runner
from nectar_node.scheduler import MAX_ROWS, Grant, Scheduler, Work
from nectar_node.speed import STRETCH, Speed

MIN_PROMPT_ROWS = 8
FOLLOW_S = 0.002  # how long an idle thread waits for the step behind a replay
HOLD_S = 0.05  # until it is looked again whether those who pay have gone
WAIT_SMOOTHING = 0.1
Deliver = Callable[[Work, torch.Tensor | Exception], None]

log = logging.getLogger(__name__)


class Engine:
    """Made in the loop that calls it. `blocks` is the size of the whole span, for measuring."""

    def __init__(
        self, runner: Runner, speed: Speed, blocks: int, deliver: Deliver, scheduler: Scheduler | None = None
    ) -> None:
        self._runner, self._speed, self._blocks, self._deliver = runner, speed, blocks, deliver
        self._scheduler: Scheduler = scheduler or FairQueue()
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._attendance = Attendance()
        self._works: dict[Hashable, deque[Work]] = {}  # of each flow; the first waits or runs
        self._running: set[Hashable] = set()
        self._ended: dict[Hashable, Callable[[], None]] = {}
        self._stopped = False
        self._started_s: float | None = None
        self._wait_s = 0.0
        self.iterations = 0
        self.finished = asyncio.Event()  # once the thread has ended
        threading.Thread(target=self._run, name="compute", daemon=True).start()

    # In the loop

    def submit(self, work: Work) -> None:
        with self._changed:
            now_s = work.ready_s = time.monotonic()
            works = self._works.setdefault(work.flow, deque())
            works.append(work)
            short = works[0].short  # what goes on from a replay is part of it
            self._attendance.came(work.flow, now_s, work.rows, short=short, paid=work.weight > 0)
            if len(works) == 1:
                self._scheduler.add(work)
            if work.replay:
                self._loop.call_later(FOLLOW_S, self._wake)
            else:
                self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def end(self, flow: Hashable, then: Callable[[], None]) -> None:
        """Drop a flow's works; `then` is called, in the loop, once nothing of it runs: at once, or soon."""
        with self._changed:
            self._attendance.forget(flow)
            if works := self._works.pop(flow, None):
                self._scheduler.discard(works[0])
            self._scheduler.forget(flow)
            if flow in self._running:
                self._ended[flow] = then
                return
        then()

    @property
    def queued(self) -> int:
        """Rows that wait."""
        with self._changed:
            return self._scheduler.rows

    @property
    def wait_us(self) -> int:
        """How long a token has lately waited before it was computed; 0 for an idle node."""
        return int(self._wait_s * 1e6) if self._works else 0

    @property
    def free_wait_s(self) -> float:
        """How long all that nobody pays for has to wait and compute, with its share if others pay."""
        with self._changed:
            rows = sum(work.rows for works in self._works.values() for work in works if not work.weight)
            share = self._scheduler.free_share if self._attendance.somebody_pays(time.monotonic()) else 1.0
        return rows * self._speed.prefill_s / share

    def busy_ms(self) -> int:
        """The age of the running iteration, for heartbeats."""
        started_s = self._started_s
        return 0 if started_s is None else int((time.monotonic() - started_s) * 1000)

    def stop(self) -> None:
        """Let the running iteration end and drop the rest."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    async def join(self) -> None:
        """Until the thread has ended."""
        await self.finished.wait()

    # In the compute thread

    @torch.inference_mode()
    def _run(self) -> None:
        torch.get_num_threads()  # or this thread's first matrix product would not know how many it may use
        while grants := self._take():
            self._started_s = time.monotonic()
            results = [result for group in groups_of(grants) for result in self._compute(group)]
            self._started_s = None
            self.iterations += 1
            finished, ended = self._settle(grants, results)
            self._call(self._hand_over, finished, ended)
        self._call(self.finished.set)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(function, *arguments)

    def _take(self) -> list[Grant]:
        """The next iteration; nothing when the engine has stopped."""
        with self._changed:
            while not self._stopped:
                if not self._scheduler.rows:
                    self._changed.wait()
                    continue
                now_s = self._linger()
                if self._stopped or not self._scheduler.rows:  # who was here has left meanwhile
                    continue
                taken = self._scheduler.take(self._prompt_rows(), self._spare_rows(now_s))
                if not taken:  # only such as those who pay should not have to wait for
                    self._changed.wait(HOLD_S)
                    continue
                grants = [grant for first in taken for grant in self._with_next(first)]
                self._running = {grant.work.flow for grant in grants}
                for grant in grants:
                    if grant.work.short:
                        self._wait_s += WAIT_SMOOTHING * (now_s - grant.work.ready_s - self._wait_s)
                return grants
            return []

    def _with_next(self, grant: Grant) -> Iterator[Grant]:
        """The grant, and if it ends a replay the short step behind that: one pass over the weights for both."""
        yield grant
        work = grant.work
        for after in islice(self._works[work.flow], 1, 2):
            follows = after.kv is work.kv and after.position == work.position + work.tokens and not after.reorder
            if work.replay and grant.tokens == work.left and after.short and follows:
                yield Grant(after, after.tokens)

    def _linger(self) -> float:
        """Wait for those who are about to come; returns the time."""
        now_s = time.monotonic()
        while not self._stopped:
            paid = self._scheduler.short_rows(paid=True)
            here = paid or max(self._scheduler.short_rows(paid=False), 1)
            until_s = self._attendance.wait_until(now_s, here, self._speed.decoding_s, only_paid=paid > 0)
            if not paid:  # who pays waits for no iteration that could as well have waited for it
                patience_s = STRETCH * self._speed.decoding_s(1)
                until_s = max(until_s, self._attendance.paid_until(now_s, patience_s))
            if until_s <= now_s:
                break
            self._changed.wait(until_s - now_s)
            now_s = time.monotonic()
        return now_s

    def _prompt_rows(self) -> int | None:
        """None while nobody else is about: a prompt then runs whole. While others decode, as many rows as take as
        long as decoding does, so that an iteration lasts about twice as long as without them."""
        sessions, decode = self._attendance.active(time.monotonic())
        if not decode:
            return MAX_ROWS if sessions > 1 else None
        row_s = self._speed.added_s or self._speed.prefill_s
        rows = int(self._speed.iteration_s / row_s) if row_s else 0
        return max(MIN_PROMPT_ROWS, min(rows, MAX_ROWS))

    def _spare_rows(self, now_s: float) -> int:
        """No bound while nobody pays. Whoever pays waits for one iteration, at most, and takes the next: with no more
        rows than these, both together last three times as long as one without anybody else."""
        return self._speed.spare_rows if self._attendance.somebody_pays(now_s) else MAX_ROWS

    def _compute(self, grants: Sequence[Grant]) -> list[Result]:
        """One forward for works through the same blocks; each alone, if together they fail."""
        started_s = time.perf_counter()
        failed: list[Result] = []
        pieces: dict[tuple[Grant, ...], Piece] = {}
        for _, together in groupby(grants, lambda grant: grant.work.flow):
            joined = tuple(together)
            try:
                piece = piece_of(joined)
                self._runner.prepare(piece)
                pieces[joined] = piece
            except Exception as error:
                failed += shares_of(joined, error)
        if not pieces:
            return failed
        try:
            outputs = self._runner.run(list(pieces.values()))
        except Exception:  # whatever a model raises fails its step, never the node, and nobody else's step
            outputs = [self._alone(piece) for piece in pieces.values()]
            return failed + all_shares(pieces, outputs)
        kv = grants[0].work.kv
        if kv.stop - kv.start == self._blocks:
            short = sum(grant.rows for joined in pieces for grant in joined if grant.work.short)
            rows = sum(piece.rows for piece in pieces.values())
            self._speed.count(short, rows - short, time.perf_counter() - started_s)
        return failed + all_shares(pieces, outputs)

    def _alone(self, piece: Piece) -> torch.Tensor | Exception:
        try:
            return self._runner.run([piece])[0]
        except Exception as error:
            return error

    def _settle(
        self, grants: Sequence[Grant], results: Sequence[Result]
    ) -> tuple[list[Result], list[Callable[[], None]]]:
        """Keep what is not whole yet; what is finished, and whom the end of this iteration frees."""
        finished: list[Result] = []
        tokens = {grant.work: grant.tokens for grant in grants}
        with self._changed:
            now_s = time.monotonic()
            for work, result in results:
                if isinstance(result, torch.Tensor):
                    work.done += tokens[work]
                    work.outputs.append(result)
                    if work.left:
                        continue
                    result = work.outputs[0] if len(work.outputs) == 1 else torch.cat(work.outputs, 1)
                work.loaded = None
                finished.append((work, result))
                self._next(work, now_s)
            self._running = set()
            ended = [self._ended.pop(flow) for flow in list(self._ended)]
        return finished, ended

    def _next(self, work: Work, now_s: float) -> None:
        """A flow's work is finished: the one behind it is ready."""
        self._scheduler.discard(work)  # a prompt that failed half-way still waits
        works = self._works.get(work.flow)
        if works is None:
            return
        works.popleft()
        if works:
            works[0].ready_s = now_s
            self._scheduler.add(works[0])
        else:
            del self._works[work.flow]
            self._attendance.left(work.flow, now_s)

    def _hand_over(self, finished: Sequence[Result], ended: Sequence[Callable[[], None]]) -> None:
        """In the loop: all of one iteration at once, so that what goes to one peer leaves in one write."""
        calls: list[Callable[[], object]] = [*(partial(self._deliver, *result) for result in finished), *ended]
        for call in calls:
            try:
                call()
            except Exception:  # what one session raises keeps no other back
                log.exception("a step's result could not be handed over")
