"""Sessions of honest clients on honest nodes, and a ledger behind them; between any two messages anything may break:
a link, a node, a client, the ledger.

Messages of a link come in order until it breaks. Receipts are posted by both sides, late, again and out of order.
"""

from collections import deque
from dataclasses import dataclass, field
from random import Random

from nectar_protocol.entries import Settled
from nectar_protocol.entry import parse_entry
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SignedReceipt, Work
from nectar_protocol.tally import worked
from nectar_swarm.bills import Bill

from benchmarks.economy.market import HOUR_MS, Market, people, person
from benchmarks.economy.session import Serving, Step, Using

PURSE_UCR, CAP = 10**13, 10**8
NODES, PAYERS, OWNER = people("node", 3), people("payer", 3), person("owner")
SESSIONS_AT_ONCE = 4

Message = Step | Bill | SignedReceipt


@dataclass
class Spool:
    """What a node keeps of a line: in memory, and on disk."""

    newest: SignedReceipt | None = None
    flushed: SignedReceipt | None = None


@dataclass
class Visit:
    """A session on one node. `heard` is the work that the client has had, replays that it asked for among it. Of the
    units that the node `computed` it may lose `lost`: a window each time that something broke, and what it had not yet
    flushed when it died.
    """

    key: Identity
    payer: Identity
    node: Identity
    hold: Hold
    weight: int
    plan: list[Step]
    using: Using
    serving: Serving
    spool: Spool = field(default_factory=Spool)
    to_node: deque[Message] = field(default_factory=deque)
    to_client: deque[Message] = field(default_factory=deque)
    waiting: deque[Step] = field(default_factory=deque)
    asked: int = 0
    heard: Work = field(default_factory=Work)
    base: int = 0
    computed: int = 0
    lost: int = 0
    closing: bool = False
    client_lives: bool = True


class Bazaar:
    def __init__(self, seed: int) -> None:
        self.random, self.market = Random(seed), Market()
        for node in NODES:
            self.market.bind(node, OWNER)
        for payer in PAYERS:
            self.market.enrich(payer, PURSE_UCR)
        self.seed, self.up, self.opened, self.outages = seed, True, 0, 0
        self.visits: list[Visit] = []
        self.past: list[Visit] = []
        self.sent: list[bytes] = []

    def run(self, sessions: int) -> None:
        while self.opened < sessions or self.visits:
            if self.opened < sessions and len(self.visits) < SESSIONS_AT_ONCE and self.up:
                self._open()
            size = len(self.market.log)
            self._act(self.random.choice(self.visits) if self.visits else None)
            if len(self.market.log) != size:
                assert self.market.is_balanced()
        self._settle()

    def _open(self) -> None:
        random, market, number = self.random, self.market, self.opened
        key, payer, node = person(f"session of {self.seed}", number), random.choice(PAYERS), random.choice(NODES)
        weight, reserved = random.choice((1, 2, 4, 8)), random.choice((0, 512))
        hold = market.opened(payer, key, {node: CAP}, weight)
        prompt, tokens = random.randint(1, 64), random.randint(0, 30)
        plan = [Step(1, 1, 0, prompt)] + [Step(n + 2, n + 2, prompt + n, 1) for n in range(tokens)]
        using = Using(key, hold, node, market.meter, reserved)
        self.visits.append(
            Visit(key, payer, node, hold, weight, plan, using, Serving(node, hold, market.meter, reserved))
        )
        self.visits[-1].heard = Work(reserved)
        self.opened += 1

    def _act(self, visit: Visit | None) -> None:
        chance = self.random.random()
        if chance < 0.005:
            self._ledger_dies() if self.up else self._ledger_returns()
        elif chance < 0.03:
            self.market.now_ms += self.random.choice((10, 1_000))
            if self.up:
                self.market.pass_time()
        elif visit is None:
            self.market.now_ms += 1_000
            self._ledger_returns()
        elif chance < 0.05:
            self._break(visit, node_dies=self.random.random() < 0.5)
        elif chance < 0.055:
            visit.client_lives = False
            self._break(visit, node_dies=self.random.random() < 0.3)
        elif chance < 0.1:
            visit.spool.flushed = visit.spool.newest
        elif chance < 0.2:
            self._post(visit)
        elif chance < 0.5:
            self._deliver_to_node(visit)
        elif chance < 0.8:
            self._deliver_to_client(visit)
        elif visit.client_lives and visit.using.answered == visit.asked:
            self._go_on(visit)

    # The session

    def _go_on(self, visit: Visit) -> None:
        if visit.asked < len(visit.plan):
            step = visit.plan[visit.asked]
            visit.asked = step.last
            visit.using.ask(step)
            visit.to_node.append(step)
        else:
            visit.closing = True

    def _deliver_to_node(self, visit: Visit) -> None:
        serving = visit.serving
        if visit.to_node:
            message = visit.to_node.popleft()
            if isinstance(message, SignedReceipt):
                serving.take(message)
                visit.spool.newest = serving.line.receipt
            elif isinstance(message, Step):
                visit.waiting.append(message)
        while visit.waiting and serving.run(visit.waiting[0]):
            step = visit.waiting.popleft()
            if step.first == step.last:  # who asks for a replay has had its outputs
                visit.to_client.append(step)
        closing = visit.closing and not visit.waiting and not visit.to_node
        bill = serving.bill(closing) if closing or serving.line.is_due or self.random.random() < 0.2 else None
        if bill is not None:
            visit.to_client.append(bill)

    def _deliver_to_client(self, visit: Visit) -> None:
        if not visit.client_lives or not visit.to_client:
            return
        message = visit.to_client.popleft()
        if isinstance(message, Step):
            if message.last > visit.using.answered:
                visit.heard = worked(visit.heard, message.billed.counted)
            visit.using.hear(message)
        elif isinstance(message, Bill):
            signed = visit.using.sign(message)
            assert signed is not None, "an honest node's bill is signed"
            visit.to_node.append(signed)
            if signed.receipt.final:
                self._leave(visit)

    def _leave(self, visit: Visit) -> None:
        """The client is done; what it still sends may be lost."""
        if self.random.random() < 0.7:
            self._deliver_to_node(visit)
        self._note(visit, node_dies=False)
        self._end(visit)

    # What breaks

    def _break(self, visit: Visit, node_dies: bool) -> None:
        """The link, and the node's or the client's end of it. Whoever is left opens the session again."""
        self._note(visit, node_dies)
        if not visit.client_lives:
            self._end(visit)
            return
        using = visit.using
        using.reopen()
        kept = [one for one in (visit.spool.newest, using.receipt) if one is not None]
        newest = max(kept, key=lambda one: one.receipt.seq, default=None)
        visit.spool.newest, visit.base = newest, _units(newest)
        reserved = visit.heard.reserved_tokens
        visit.serving = Serving(visit.node, visit.hold, self.market.meter, reserved, newest)
        if using.answered:
            replay = Step(1, using.answered, 0, visit.plan[using.answered - 1].end)
            visit.to_node.append(replay if using.answered > 1 else visit.plan[0])
            visit.heard = worked(visit.heard, replay.billed.counted)
        visit.to_node.extend(visit.plan[using.answered : visit.asked])

    def _note(self, visit: Visit, node_dies: bool) -> None:
        """What is lost with a session that ends, and what with a node that dies before it has flushed."""
        serving, spool = visit.serving, visit.spool
        line = serving.line
        assert line.unsigned_steps <= 16
        assert line.unsigned_tokens <= 1024
        visit.computed += serving.units - visit.base
        visit.lost += serving.units - serving.signed_units
        if node_dies:
            visit.lost += _units(spool.newest) - _units(spool.flushed)
            spool.newest = spool.flushed
        visit.to_node.clear()
        visit.to_client.clear()
        visit.waiting.clear()

    def _end(self, visit: Visit) -> None:
        visit.spool.flushed = visit.spool.newest
        self.visits.remove(visit)
        self.past.append(visit)

    # The ledger

    def _post(self, visit: Visit) -> None:
        """Of either side; often something that was posted long ago."""
        receipts = (visit.spool.flushed, visit.using.receipt if visit.client_lives else None)
        chosen = [one.pack() for one in receipts if one is not None]
        self.sent += chosen
        for data in [*chosen, *self.random.choices(self.sent, k=2 if self.sent else 0)]:
            if self.up:
                self.market.post(data)

    def _ledger_dies(self) -> None:
        self.up = False

    def _ledger_returns(self) -> None:
        """With what its log says, after a second or after hours."""
        if self.up:
            return
        self.market.now_ms += self.random.choice((1_000, 3 * HOUR_MS))
        self.market.restart()
        self.market.resume()
        self.up = True
        self.outages += 1

    def _settle(self) -> None:
        """Everybody posts what they have, in any order, and all holds end."""
        self._ledger_returns()
        receipts = [one for visit in self.past for one in (visit.spool.flushed, visit.using.receipt) if one is not None]
        self.random.shuffle(receipts)
        for one in receipts:
            self.market.post(one.pack())
            assert self.market.is_balanced()
        self.market.pass_time(3 * HOUR_MS)

    def paid(self) -> dict[bytes, int]:
        """Units by hold, as the log has them. Raises SignatureError for a credit that nobody has signed."""
        units: dict[bytes, int] = {}
        for draft in self.market.log:
            body = parse_entry(draft.entry).body
            if isinstance(body, Settled):
                body.receipt.verify()
                units[body.receipt.receipt.hold] = body.receipt.receipt.units
        return units


def _units(receipt: SignedReceipt | None) -> int:
    return 0 if receipt is None else receipt.receipt.units
