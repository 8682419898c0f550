"""One session's account with its node: steps wait at its window, and what was computed becomes bills and receipts.

Nothing of this stands in a step's way: hashing and signing come after its output has left, what is large in a thread.
Who opens a session and lets it wait pays for that too: then the opening is billed by itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import torch
from nectar_protocol.commitment import Digests, StepHeader, StepKind
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.tally import Tally
from nectar_swarm.bills import BilledStep, Countersignature
from nectar_swarm.frames import Kind
from nectar_swarm.vectors import vector_digests

from nectar_node.background import in_thread
from nectar_node.errors import RecordError
from nectar_node.scheduler import Work
from nectar_node.till.line import Asked, Line, counted

QUIET_S = 0.25  # after which what is unbilled is billed
UNPAID_S = 10.0  # how long a step waits for a countersignature, or for a hold, and so does an opening without steps
INLINE_BYTES = 64 << 10  # hashed in the loop; more in a thread

Computed = tuple[Work, torch.Tensor]


class Account:
    """Lives in one loop.

    `submit` has a step computed, `send` tells the client, `keep` takes every receipt that both have signed, `unpaid`
    hears why the session must end, `expired` tells whether the hold has. After `close`, `done` is called once the final
    receipt is signed, or nothing more will come.
    """

    def __init__(
        self,
        hold: SignedHold,
        line: Line,
        salt: bytes,
        server: Identity,
        *,
        submit: Callable[[Work], None],
        send: Callable[[Kind, bytes], None],
        keep: Callable[["Account", SignedReceipt], None],
        unpaid: Callable[[str], None],
        expired: Callable[[SignedHold], bool],
    ) -> None:
        self.hold, self.line = hold, line
        self._salt, self._server = salt, server
        self._submit, self._send, self._keep, self._unpaid, self._expired = submit, send, keep, unpaid, expired
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Work, Asked]] = deque()
        self._computed: deque[Computed] = deque()
        self._folding: asyncio.Task[None] | None = None  # in a thread
        self._soon = False  # computed steps are counted in the loop's next turn
        self._quiet: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._opening: asyncio.TimerHandle | None = None  # the end of the patience with one that nobody signs
        self._used_s = self._loop.time()
        self._done: Callable[[], None] | None = None
        self.ended = False
        if line.opens:
            self._quiet = self._loop.call_later(QUIET_S, self._be_quiet)

    # Steps

    def enter(self, work: Work) -> None:
        """Have a step computed, now or as soon as the window lets it in."""
        self._waiting.append((work, asked_of(work)))
        self._advance()

    def computed(self, work: Work, output: torch.Tensor) -> None:
        """A step's output, as it travels, has left."""
        self._used_s = self._loop.time()
        self._computed.append((work, output))
        if not self._soon and self._folding is None:
            self._soon = True
            self._loop.call_soon(self._fold)

    def _fold(self) -> None:
        """Count what was computed: a little here, much in a thread."""
        self._soon = False
        if self.ended or not self._computed or self._folding is not None:
            return
        size = sum(2 * output.nbytes for _, output in self._computed)
        if size <= INLINE_BYTES and all(_is_at_hand(work) for work, _ in self._computed):
            steps = self._take()
            self._count(*self._hash(self.line.tally, steps))
        else:
            self._folding = asyncio.create_task(self._fold_in_thread())

    async def _fold_in_thread(self) -> None:
        try:
            while self._computed and not self.ended:
                tally, steps = self.line.tally, self._take()
                result = await in_thread(partial(self._hash, tally, steps))
                if not self.ended:
                    self.line.count(*result)
        except RecordError as error:
            if self._done is None and not self.ended:
                self._unpaid(f"this session cannot be billed any more: {error}")
            self.end()
        finally:
            self._folding = None
        self._proceed()

    def _take(self) -> list[Computed]:
        steps = list(self._computed)
        self._computed.clear()
        return steps

    def _hash(self, tally: Tally, steps: list[Computed]) -> tuple[list[BilledStep], Tally]:
        """From any thread. Raises RecordError."""
        billed = [self._billed(work, output) for work, output in steps]
        return billed, counted(tally, billed)

    def _billed(self, work: Work, output: torch.Tensor) -> BilledStep:
        first, last = work.tag
        header = StepHeader(StepKind.FORWARD, work.position, work.reorder)
        return BilledStep(first, last, header, self._digests(work.stored.load()), self._digests(output))

    def _digests(self, hidden: torch.Tensor) -> Digests:
        return vector_digests(self._salt, hidden)

    def _count(self, steps: list[BilledStep], tally: Tally) -> None:
        self.line.count(steps, tally)
        self._proceed()

    # Bills

    def countersign(self, answer: Countersignature) -> None:
        """Raises PaymentError for a signature that is not the session's."""
        receipt = self.line.countersign(answer)
        if receipt is None:
            return
        self._keep(self, receipt)
        if receipt.receipt.final:
            self.end()
            return
        if self._done is None:
            self._stop_waiting()
        self._proceed()

    def extend(self, hold: SignedHold) -> None:
        """The hold's newer revision."""
        self.hold = hold
        line = hold.hold.line(self.line.tally.terms.server)
        self.line.cap_units = None if line is None else line.cap_units
        if self._done is None:
            self._stop_waiting(opening=self.line.offer is None)
        self._proceed()

    def close(self, done: Callable[[], None]) -> None:
        """Nothing more is to be computed: bill what there is, for good. `done` is called when that is settled."""
        self._done = done
        self._waiting.clear()
        self._stop_waiting()
        self._patience = self._loop.call_later(UNPAID_S, self.end)
        self._proceed()

    def end(self) -> None:
        """No more of this session, paid or not."""
        if self.ended:
            return
        self.ended = True
        self._stop_waiting()
        if self._quiet is not None:
            self._quiet.cancel()
        self._waiting.clear()
        self._computed.clear()
        if self._done is not None:
            self._done()

    @property
    def owes(self) -> bool:
        """Has anything been computed, begun or billed that no receipt covers?"""
        return self.line.unsigned_steps > 0 or self.line.offer is not None

    def _proceed(self) -> None:
        """Bill what is due, and let in what has room."""
        if self.ended:
            return
        line = self.line
        if self._done is not None:
            self._finish()
            return
        if line.is_due:
            self._bill()
        self._advance()
        if (line.unbilled or line.opens) and line.offer is None and self._quiet is None:
            self._quiet = self._loop.call_later(QUIET_S, self._be_quiet)

    def _finish(self) -> None:
        """The final bill, once all that was computed is counted and no other bill is open."""
        if self.line.cap_units is None:
            self.end()
        elif self.line.may_bill and not self._computed and self._folding is None:
            self._bill(final=True)

    def _bill(self, final: bool = False) -> None:
        self._send(Kind.BILL, self.line.bill(self._server, final).pack())

    def _be_quiet(self) -> None:
        """Bill what has been left for a while, unless something is under way that goes on the same bill."""
        self._quiet = None
        line = self.line
        if self._done is not None or line.offer is not None or not (line.unbilled or line.opens):
            return
        left_s = self._used_s + QUIET_S - self._loop.time()
        if left_s > 0.001 or line.uncounted_steps:
            self._quiet = self._loop.call_later(max(left_s, QUIET_S / 8), self._be_quiet)
            return
        opens = not line.unbilled or not line.may_bill
        if line.may_bill:
            self._bill()
        if opens and self._opening is None:
            self._opening = self._loop.call_later(UNPAID_S, self._close_up)

    def _advance(self) -> None:
        """Let in the steps that have room, in order."""
        while self._waiting:
            work, asked = self._waiting[0]
            why = "the hold has expired" if self._expired(self.hold) else self.line.why_wait(asked)
            if why is not None:
                self._wait(why)
                return
            self._waiting.popleft()
            self.line.admit(asked)
            self._submit(work)

    def _wait(self, why: str) -> None:
        """A step waits for the client, who is to be told what it owes, and then has so long."""
        line = self.line
        if line.uncounted_steps:
            return
        if line.unbilled and line.may_bill:
            self._bill()
        if self._patience is None:
            self._patience = self._loop.call_later(UNPAID_S, self._give_up, why)

    def _give_up(self, why: str) -> None:
        self._patience = None
        self._unpaid(f"a step has waited for {UNPAID_S:.0f} s: {why}")

    def _close_up(self) -> None:
        self._opening = None
        without = ": the hold has no line for this node" if self.line.cap_units is None else ""
        self._unpaid(f"its opening has not been countersigned for {UNPAID_S:.0f} s{without}")

    def _stop_waiting(self, opening: bool = True) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if opening and self._opening is not None:
            self._opening.cancel()
            self._opening = None


def asked_of(work: Work) -> Asked:
    first, last = work.tag
    header = StepHeader(StepKind.FORWARD, work.position, work.reorder)
    return Asked(first, last, header, work.batch, work.tokens)


def _is_at_hand(work: Work) -> bool:
    """Is what came still in memory?"""
    return getattr(work.stored, "tensor", None) is not None
