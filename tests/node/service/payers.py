"""Clients that pay, made by hand: they open sessions under holds of a small world's ledger, and sign what they say."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nectar_node.till.spool import Spool
from nectar_node.till.till import Till
from nectar_protocol.announcement import Profile
from nectar_protocol.entry import pack_entry
from nectar_protocol.hold import Hold, Line, SignedHold, sorted_lines
from nectar_protocol.identity import Identity, PublicKey, parse_peer_id
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.tally import Tally, Terms
from nectar_swarm.bills import Bill, Countersignature
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, Open, Routed, Step
from nectar_swarm.payment import Payment, opening
from nectar_swarm.vectors import vector_digests

from tests.ledger.api.served import Clock
from tests.ledger.world import START_MS, World, person
from tests.node.service.peers import HANGS_S, MODEL, HandMade, numbers, request

BLOCKS = 6
NODE, OWNER = person("the serving node"), person("its owner")
ENTRY = ModelEntry(MODEL, 1, AuditState.ENFORCED, (BlockCost(20_000_000, 4_000),) * BLOCKS)
WORLD = World(model=ENTRY)
PLENTY = 10**9


def new_till(folder: Path, clock: Clock, world: World = WORLD) -> Till:
    """Of a node that knows its ledger and is bound."""
    till = Till(NODE, MODEL, Profile.F32, Spool(folder / "node.till.db"), OWNER.public, now_ms=clock)
    till.facts.learn_ledger(pack_entry(START_MS, world.genesis))
    till.facts.learn_policy(world.policy)
    till.facts.learn_model(world.model)
    till.facts.learn_payee(OWNER.public)
    return till


def new_hold(session: Identity, world: World = WORLD, cap: int = PLENTY, **changes: Any) -> Hold:
    """As the ledger makes them; by default with a line for the node."""
    hold = Hold(
        world.ledger, bytes(session.public), session.public, MODEL, world.policy.id, START_MS + 600_000, 1, 1,
        frozenset(Profile), (Line(NODE.public, cap),),
    )  # fmt: skip
    return replace(hold, **changes)


def line_of_another() -> tuple[Line, ...]:
    return (Line(person("another node").public, PLENTY),)


def with_line(hold: Hold, cap: int = PLENTY, **changes: Any) -> Hold:
    """The next revision, in which the node's line has this cap."""
    others = [line for line in hold.lines if line.server != NODE.public]
    lines = sorted_lines([*others, Line(NODE.public, cap)])
    return replace(hold, **({"revision": hold.revision + 1, "lines": lines} | changes))


class Payer:
    """One session of a peer. `bills` are those that came, `signs` how many more of them it countersigns."""

    def __init__(
        self,
        client: HandMade,
        name: str,
        hold: Hold | None = None,
        world: World = WORLD,
        node: PublicKey = NODE.public,
        **changes: Any,
    ) -> None:
        self.client, self.key, self.world, self.node = client, person(name), world, node
        self.hold = hold or new_hold(self.key, world, **changes)
        self.salt = bytes([7] * 32)
        self.number = next(numbers)
        self.signs: float = float("inf")
        self.bills: list[Bill] = []
        self.receipt: SignedReceipt | None = None
        self.sent: list[Step] = []

    def signed(self, hold: Hold | None = None) -> SignedHold:
        return (hold or self.hold).signed(self.world.keys.holds)

    def payment(self, request: Open, receipt: SignedReceipt | None = None, **changes: Any) -> Payment:
        """For this request on this link; `changes` of what is signed for."""
        what = {"node": self.node, "link": self.client.host.peer_id, "number": self.number} | changes
        hold = self.signed()
        signed = opening(request, hold, self.salt, what["node"], parse_peer_id(what["link"]), what["number"])
        return Payment(hold, self.salt, signed.sign(self.key), receipt)

    def paid(self, receipt: SignedReceipt | None = None, **changes: Any) -> Open:
        """An OPEN with its payment."""
        asked = request(**changes)
        return replace(asked, hold=self.payment(asked, receipt).pack())

    async def open(self, receipt: SignedReceipt | None = None, **changes: Any) -> None:
        self.request = self.paid(receipt, **changes)
        self.client.send(self.number, self.request)
        assert await self.receive() == Routed(1)
        self.tally = self._new_tally(receipt)

    def _new_tally(self, receipt: SignedReceipt | None) -> Tally:
        asked, hold = self.request, self.hold
        terms = Terms(hold.id, self.node, hold.session, asked.start, asked.stop, Profile.F32, 0, self.salt)
        if receipt is None:
            return Tally.begin(terms, asked.positions)
        return Tally.resume(terms, receipt.receipt, asked.positions)

    async def refused(self, asked: Open) -> Error:
        return await self.client.refusal(self.number, asked)

    async def receive(self) -> Any:
        """What comes next beside bills, which are answered."""
        while True:
            message = await self.client.receive(self.number)
            if not isinstance(message, Bill):
                return message
            self.take(message)

    def take(self, bill: Bill) -> None:
        self.bills.append(bill)
        bill.receipt.verify_server(bill.signature)
        if self.signs > 0:
            self.signs -= 1
            self.countersign(bill)

    def countersign(self, bill: Bill) -> None:
        signature = bill.receipt.sign(self.key)
        self.client.send(self.number, Countersignature(bill.receipt.seq, signature).pack(), Kind.COUNTERSIGN)
        self.receipt = SignedReceipt(bill.receipt, bill.signature, signature)

    async def step(self, step: Step) -> Step:
        self.client.send(self.number, step)
        answer = await self.receive()
        assert isinstance(answer, Step), answer
        return answer

    async def bill(self, count: int) -> Bill:
        """Until so many have come; nothing else may."""
        async with asyncio.timeout(HANGS_S):
            while len(self.bills) < count:
                message = (await self.client.inbox[self.number].get())[1]
                assert isinstance(message, Bill), message
                self.take(message)
        return self.bills[count - 1]

    async def close(self) -> Bill:
        """Until the final bill has come."""
        self.client.send(self.number, b"", Kind.CLOSE)
        while not (self.bills and self.bills[-1].receipt.final):
            await self.bill(len(self.bills) + 1)
        await self.client.status()
        return self.bills[-1]

    def check(self, steps: Sequence[Step], answers: Sequence[Step]) -> None:
        """The bills say what was sent and answered, and nothing else: all of it is counted here again."""
        world, asked = self.world, self.request
        meter = Meter.of(asked.start, asked.stop, Profile.F32, world.model, world.policy)
        told = iter(zip(steps, answers, strict=True))
        for bill in self.bills:
            for billed in bill.steps:
                step, answer = next(told)
                assert (billed.first, billed.last) == (step.first, step.last)
                assert (billed.header.position, billed.header.reorder) == (step.position, step.reorder)
                assert billed.inputs == vector_digests(self.salt, step.hidden)
                assert billed.outputs == vector_digests(self.salt, answer.hidden)
                self.tally = self.tally.after(billed.counted)
            assert bill.receipt == self.tally.receipt(meter, bill.receipt.final)
            self.tally = self.tally.signed()
        assert not list(told)
