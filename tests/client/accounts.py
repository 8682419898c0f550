"""Nodes that bill as they should, around a tab: steps, rollbacks, reorders and failovers, without a network.

Nothing is computed: an output is its input with the node's own mark, other for every run, so that a replay differs from
what it replays.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from nectar.line import Line
from nectar.tab import Decision, Fault, Signed, Tab
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE
from nectar_protocol.tally import Tally, Terms
from nectar_swarm.bills import Bill, BilledStep
from nectar_swarm.history import History
from nectar_swarm.messages import Step
from nectar_swarm.vectors import vector_digests

HOLD, SALT, MODEL = b"h" * 32, b"s" * 32, b"m" * 32
BLOCKS, WIDTH, NUMBER = 8, 2, 7
ENTRY = ModelEntry(MODEL, 1, AuditState.SHADOW, (BlockCost(3_000_000, 5_000, 0),) * BLOCKS)
CAP = 10**12


def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


KEY = identity(1)


@dataclass(eq=False)
class Biller:
    """A node's side of a line. `spoil` may change a bill before it is signed."""

    identity: Identity
    start: int
    stop: int
    reserved: int
    history: History = field(default_factory=History)
    accepted: int = 0
    sent: int = 0
    whole: bool = False
    unbilled: list[BilledStep] = field(default_factory=list)
    outstanding: Bill | None = None
    closed: bool = False  # has billed that nothing follows
    receipts: int = 0

    def __post_init__(self) -> None:
        self.terms = Terms(HOLD, self.identity.public, KEY.public, self.start, self.stop, Profile.F32, 0, SALT)
        self.tally = Tally.begin(self.terms, self.reserved)
        self.meter = Meter.of(self.start, self.stop, Profile.F32, ENTRY, EXAMPLE)
        self.line = Line(peer=self.identity.peer_id, number=NUMBER, meter=self.meter, tally=self.tally, cap_units=CAP)

    def take(self, step: Step, noise: torch.Generator) -> None:
        if step.last <= self.accepted:
            return
        first = max(step.first, self.accepted + 1)
        assert step.first <= self.accepted + 1
        out = step.hidden + torch.randn(step.hidden.shape, generator=noise)
        header = StepHeader(StepKind.FORWARD, step.position, step.reorder)
        hashed = (vector_digests(SALT, hidden) for hidden in (step.hidden, out))
        self.unbilled.append(BilledStep(first, step.last, header, *hashed))
        self.accepted = step.last
        self.history.append(Step(first, step.last, step.position, out, step.reorder))

    def bill(self, final: bool = False) -> Bill | None:
        """All that is unbilled, if only the opening, unless a bill is still to be answered."""
        if self.outstanding is not None or self.closed or not (self.unbilled or final or not self.tally.seq):
            return None
        self.closed = final
        for step in self.unbilled:
            self.tally = self.tally.after(step.counted)
        rows = len(self.unbilled[0].inputs) if self.unbilled else 1
        self.outstanding = self.sign(rows, tuple(self.unbilled), self.tally, final)
        self.unbilled = []
        return self.outstanding

    def sign(self, rows: int, steps: tuple[BilledStep, ...], tally: Tally, final: bool = False, **changes: Any) -> Bill:
        receipt = replace(tally.receipt(self.meter, final), **changes)
        return Bill(rows, steps, receipt, receipt.sign(self.identity))

    def accept(self, signed: Signed) -> None:
        assert self.outstanding is not None
        assert signed.receipt.receipt == self.outstanding.receipt
        signed.receipt.verify()
        self.tally, self.outstanding = self.tally.signed(), None
        self.receipts += 1


class Play:
    """A session of one seed. `run` makes so many steps; `faults` are those that the tab has found."""

    def __init__(self, seed: int, *, hops: int = 3, rows: int | None = None, deadly: float = 0.1) -> None:
        self.dice, self.noise = Random(seed), torch.Generator().manual_seed(seed)
        self.rows = rows or self.dice.choice([1, 1, 2, 3])
        self.deadly = deadly
        self.tab, self.history = Tab(KEY), History()
        self.last = self.answered = self.position = self.sent = 0
        self.made = 1
        self.faults: list[Fault] = []
        self.gone: list[Biller] = []
        size = BLOCKS // hops
        self.spans = [(at * size, BLOCKS if at + 1 == hops else (at + 1) * size) for at in range(hops)]
        self.nodes = [self.node(*span) for span in self.spans]
        self.spoil: Callable[[Biller, Bill], Bill] = lambda node, bill: bill
        self.place()

    def node(self, start: int, stop: int) -> Biller:
        self.made += 1
        node = Biller(identity(self.made), start, stop, self.rows * 1000)
        self.tab.open(node.line)
        return node

    def place(self) -> None:
        """As a route's `places`."""
        if not any(node.accepted and not node.whole for node in self.nodes):
            self.settled = self.answered
        self.sent = self.answered if self.nodes[0].whole else 0
        for node, after in zip(self.nodes, [*self.nodes[1:], None], strict=True):
            node.sent = self.answered if after is None or after.whole else 0
        self.tab.place([node.line for node in self.nodes], self.settled)

    def replace(self, at: int) -> None:
        """A node is lost, and another takes its place."""
        self.gone.append(self.nodes[at])
        self.hear(self.tab.lose(self.nodes[at].line))
        self.nodes[at] = self.node(*self.spans[at])
        self.place()

    # Steps

    def ask(self, tokens: int, back: int = 0, reorder: tuple[int, ...] = ()) -> None:
        """A step that leaves the session, and is on its way."""
        self.position -= min(back, self.position)
        self.last += 1
        hidden = torch.randn(self.rows, tokens, WIDTH, generator=self.noise)
        self.tab.ask(self.last, self.rows, self.position, tokens, reorder)
        self.history.append(Step(self.last, self.last, self.position, hidden, reorder))
        self.position += tokens
        self.hear(self.tab.sent(self.last, vector_digests(SALT, hidden)))

    def flow(self, hops: int | None = None) -> None:
        """Through so many nodes; through all of them, it is answered."""
        for step in self.history.after(self.sent, self.settled):
            self.nodes[0].take(step, self.noise)
            self.sent = step.last
        for node, after in list(zip(self.nodes, self.nodes[1:], strict=False))[:hops]:
            for step in node.history.after(node.sent, self.settled):
                after.take(step, self.noise)
                node.sent = step.last
        if hops is None:
            self.answer()

    def answer(self) -> None:
        last = self.nodes[-1]
        (step,) = [step for step in last.history.after(last.sent, self.settled) if step.last == self.last]
        last.sent = self.answered = self.last
        for node in self.nodes:
            node.whole = True
        self.hear(self.tab.answered(self.last, last.line, vector_digests(SALT, step.hidden)))

    def step(self) -> None:
        """Whatever a client may do: prompts, tokens, drafts that are rolled back, beams, steps that are given up."""
        dice = self.dice
        tokens, back = dice.choice([1, 1, 1, 2, 5, 9]), dice.choice([0, 0, 0, 1, 4])
        order = tuple(dice.choices(range(self.rows), k=self.rows)) if self.position and dice.random() < 0.3 else ()
        self.ask(tokens, back, order)
        while dice.random() < self.deadly:
            self.flow(dice.randrange(len(self.nodes)))
            self.bill_some()
            if dice.random() < 0.2:
                return  # given up
            self.replace(dice.randrange(len(self.nodes)))
        self.flow()
        self.bill_some()

    # Bills

    def bill_some(self) -> None:
        for node in self.dice.sample(self.nodes, self.dice.randint(0, len(self.nodes))):
            self.bill(node)

    def bill(self, node: Biller, final: bool = False) -> None:
        if (bill := node.bill(final)) is not None:
            self.hear(self.tab.bill(node.line, self.spoil(node, bill)))

    def close(self) -> None:
        """Everybody bills what is left, and that nothing follows, as soon as the bill before is answered."""
        for _ in range(len(self.nodes) + 1):
            for node in self.dice.sample(self.nodes, len(self.nodes)):
                self.bill(node, final=True)

    def hear(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Fault):
                self.faults.append(decision)
                continue
            node = next(one for one in (*self.nodes, *self.gone) if one.line is decision.line)
            if node.outstanding is not None and node.outstanding.receipt == decision.receipt.receipt:
                node.accept(decision)
