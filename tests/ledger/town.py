"""A ledger with something of everything in it: what people, nodes and an auditor of a small town did."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from nectar_ledger.core.machine import Answer, Outcome
from nectar_ledger.core.orders import Obey, Order, Resume, Tick
from nectar_protocol.commands import KeyPurpose
from nectar_protocol.commands import Outcome as Finding
from nectar_protocol.entries import Settled
from nectar_protocol.entry import parse_entry
from nectar_protocol.hold import Hold, SignedHold

from tests.ledger.world import HOUR_MS, POLICY, START_MS, World, person

Submit = Callable[[Sequence[Order]], "Future[list[Outcome]]"]

TOWN_POLICY = replace(POLICY, probes_ppm=3_000_000, batch_units=1)
ALICE, BOB, CAROL, AUDITOR = map(person, ("alice", "bob", "carol", "auditor"))
NORTH, SOUTH = map(person, ("north", "south"))
WALKER, FIRST, SECOND = map(person, ("walker", "first session", "second session"))
CAP_UNITS = 1_000_000


class Settable(Protocol):
    """A clock that can be set."""

    now_ms: int


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


class Town:
    """Alice pays, Bob and Carol own a node each, an auditor probes.

    `free` is a hold that nobody pays for, `spent` one whose lines are final, `live` one that is open. North's `judged`
    batch is released with a verdict; its `waiting` one is open, and has a `secret` verdict that nobody may see.
    `asked` is what Alice asked for and nobody may see.
    """

    def __init__(self, world: World, submit: Submit, read_entry: Callable[[int], bytes], clock: Settable) -> None:
        self.world = world
        self._submit, self._read_entry, self._clock = submit, read_entry, clock
        self.free: Hold
        self.spent: Hold
        self.live: Hold
        self.judged: int
        self.waiting: int
        self.secret: Obey
        self.asked: list[Obey] = []

    def live_a_day(self) -> None:
        """In a ledger that has its genesis."""
        world = self.world
        self.do(
            world.publish_model(), world.set_key(AUDITOR, KeyPurpose.AUDITOR), world.bind(NORTH, BOB),
            world.bind(SOUTH, CAROL), world.grant(ALICE, 20_000_000), world.fund(ALICE, 10_000_000),
        )  # fmt: skip
        self.free = self.open(world.open_hold(WALKER, WALKER, {NORTH: CAP_UNITS}, self.now_ms + 600_000))
        self.do(world.receipt(self.free, NORTH, WALKER, 1, 20))
        caps = {NORTH: CAP_UNITS, SOUTH: CAP_UNITS}
        self.spent = self.ask(world.open_hold(ALICE, FIRST, caps, self.now_ms + 600_000))
        first, *_ = self.do(
            world.receipt(self.spent, NORTH, FIRST, 1, 10), world.receipt(self.spent, NORTH, FIRST, 2, 30, final=True),
            world.receipt(self.spent, SOUTH, FIRST, 1, 30, final=True),
        )  # fmt: skip
        self.judged = self.batch_of(first)
        self.do(world.verdict(AUDITOR, NORTH, self.judged, self.spent, Finding.PASSED))
        self.wait(120_000)
        self.wait(2 * HOUR_MS)
        self.live = self.ask(world.open_hold(ALICE, SECOND, {NORTH: CAP_UNITS}, self.now_ms + 600_000))
        self.live = self.ask(world.extend(ALICE, self.live, caps, self.now_ms + 700_000))
        (settled,) = self.do(world.receipt(self.live, NORTH, SECOND, 1, 5))
        self.waiting = self.batch_of(settled)
        self.secret = world.verdict(AUDITOR, NORTH, self.waiting, self.live, Finding.FAILED, b"secret evidence")
        self.do(
            self.secret, world.withdraw(ALICE, 1_000), world.dispute(SECOND, self.live, NORTH),
            world.change_payee(SOUTH, CAROL, BOB), Resume(),
        )  # fmt: skip

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms

    def do(self, *orders: Order) -> list[Answer]:
        """Each must be accepted."""
        answers = []
        for outcome in self._submit(orders).result(30):
            assert isinstance(outcome, Answer), outcome
            answers.append(outcome)
        return answers

    def open(self, order: Obey) -> Hold:
        """Open or extend a hold."""
        (answer,) = self.do(order)
        return SignedHold.unpack(answer.response).hold

    def ask(self, order: Obey) -> Hold:
        """The same as Alice, in private."""
        self.asked.append(order)
        return self.open(order)

    def batch_of(self, settled: Answer) -> int:
        """Into which a receipt was settled."""
        assert settled.index is not None
        body = parse_entry(self._read_entry(settled.index)).body
        assert isinstance(body, Settled)
        return body.batch_account

    def wait(self, ms: int) -> None:
        """Let time pass, and do what is due then."""
        self._clock.now_ms += ms
        while self.do(Tick())[0].index is not None:
            pass
