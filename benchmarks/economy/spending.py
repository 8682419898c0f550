"""A client that would pay less than it was served, and a node that would be paid for more."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from nectar_ledger.core.machine import Rejected
from nectar_protocol.commands import CloseHold
from nectar_protocol.identity import Identity
from nectar_protocol.money import MILLION
from nectar_protocol.policy import EXAMPLE, Policy
from nectar_protocol.receipt import Receipt, SignedReceipt, Work

from benchmarks.economy.gain import Gain, worst
from benchmarks.economy.market import HOUR_MS, MODEL, POLICY, Market, decoded, people, person
from benchmarks.economy.session import Serving, Step, Using, agree

PURSE_UCR = 10**9
CAP = 10**8  # units
CHUNK = 256  # tokens of a prompt's piece

CLIENT, NODE, OWNER, SESSION = person("client"), person("node"), person("owner"), person("session")


def open_market(policy: Policy = POLICY) -> Market:
    """With a node, and a client who can pay, and a pool that others have filled."""
    market = Market(policy)
    market.bind(NODE, OWNER)
    market.enrich(CLIENT, PURSE_UCR)
    market.enrich(person("bystander"), 100 * PURSE_UCR)
    return market


def steps(chunks: int, tokens: int) -> list[Step]:
    """A prompt in so many chunks, then single tokens."""
    first = CHUNK * chunks
    prompt = [Step(n + 1, n + 1, CHUNK * n, CHUNK) for n in range(chunks)]
    return prompt + [Step(chunks + n + 1, chunks + n + 1, first + n, 1) for n in range(tokens)]


def refuse_last(chunks: int = 6, tokens: int = 24) -> Gain:
    """A client takes what it can get and signs no more, from any step on: it has one window for nothing, at most."""
    plan, meter = steps(chunks, tokens), Market().meter
    end = plan[-1].end
    window = max(
        meter.units(Work(decode_tokens=16, decode_context=16 * end)),
        meter.units(Work(prefill_tokens=1_024, prefill_context=1_024 * end)),
    )
    return worst(*(_refuse_from(number, plan, window) for number in range(1, len(plan) + 2)))


def _refuse_from(number: int, plan: list[Step], window: int) -> Gain:
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: 10 * CAP})
    serving, using = Serving(NODE, hold, market.meter), Using(SESSION, hold, NODE, market.meter)
    for step in plan:
        using.ask(step)
        if not serving.run(step):
            break
        using.hear(step)
        bill = serving.bill() if serving.line.is_due else None
        signed = using.sign(bill) if bill and step.last < number else None
        if signed:
            serving.take(signed)
    if serving.line.receipt:
        market.post(serving.line.receipt.pack())
    market.pass_time(3 * HOUR_MS)
    return Gain(market.price_ucr(serving.units), PURSE_UCR - market.wealth_ucr(CLIENT), market.price_ucr(window))


Lie = Callable[[Receipt], Receipt]


def more(**counts: int) -> Lie:
    """The receipt over so much more work, at what that is worth."""

    def lie(receipt: Receipt) -> Receipt:
        work = Work(*(count + counts.get(name, 0) for name, count in receipt.work._asdict().items()))
        return replace(receipt, work=work, units=Market().meter.units(work))

    return lie


LIES: tuple[Lie, ...] = (
    lambda receipt: replace(receipt, units=receipt.units * 2),
    lambda receipt: replace(receipt, seq=receipt.seq + 1, units=receipt.units + 1_000_000),
    more(decode_tokens=100),
    more(decode_context=10**6),
    more(prefill_tokens=100),
    more(backward_tokens=10),
    more(reserved_tokens=10**5),
)


def overbill(lies: tuple[Lie, ...] = LIES) -> Gain:
    """A node bills more than it did: no client signs that, and the ledger takes nothing that is not signed."""
    return worst(*(_overbill(lie) for lie in lies))


def _overbill(lie: Lie) -> Gain:
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: CAP})
    serving, honest = Serving(NODE, hold, market.meter), Using(SESSION, hold, NODE, market.meter)
    for step in steps(0, 8):
        honest.ask(step)
        serving.run(step)
        honest.hear(step)
    bill = serving.bill()
    if bill is None:
        raise RuntimeError("what was computed can be billed")
    false = lie(bill.receipt)
    asked = honest.sign(replace(bill, receipt=false, signature=false.sign(NODE)))
    due_ucr = market.price_ucr(serving.units)
    willing = Using(SESSION, hold, NODE, market.meter)  # the same client, had it not been lied to
    for step in steps(0, 8):
        willing.ask(step)
        willing.hear(step)
    signed = willing.sign(bill)
    if signed is None:
        raise RuntimeError("honest sides count alike")
    for signature in (asked and asked.session_signature, signed.session_signature, false.sign(NODE)):
        if signature:
            market.post(SignedReceipt(false, false.sign(NODE), signature).pack())
    market.post(signed.pack())
    market.pass_time(2 * HOUR_MS)
    return Gain(PURSE_UCR - market.wealth_ucr(CLIENT), due_ucr)


def overstate() -> Gain:
    """A node and a free client of its own sign more units than their work is worth, for a part of the emission."""
    market = open_market()
    hold = market.opened(SESSION, SESSION, {NODE: POLICY.free_cap_units})
    work = decoded(10)
    market.settle(market.bill(hold, NODE, 1, work, units=POLICY.free_cap_units), NODE, SESSION)
    market.settle(market.bill(hold, NODE, 2, work, final=True), NODE, SESSION)
    market.pass_time(2 * HOUR_MS)
    return Gain(market.wealth_ucr(OWNER), market.meter.units(work) * POLICY.emission_price / MILLION)


def spend_twice(seed: int = 1, holds: int = 30) -> Gain:
    """A client opens holds that together cost many times what it has, shows each to several nodes, and is served as far
    as they go.
    """
    random, market, nodes = Random(seed), open_market(), people("other node", 6)
    for node in nodes:
        market.bind(node, OWNER)
    served_ucr = 0
    for number in range(holds):
        key, weight = person("spender's session", number), random.choice((1, 2, 4, 8))
        chosen = random.sample(nodes, random.randint(1, 4))
        hold = market.open_hold(CLIENT, key, dict.fromkeys(chosen, CAP), weight)
        if isinstance(hold, Rejected):
            continue
        for node in chosen:
            receipt = market.bill(hold, node, 1, decoded(random.randint(1_000, 1_400)))
            outcome = market.settle(receipt, node, key)
            served_ucr += market.price_ucr(receipt.units, weight) * (not isinstance(outcome, Rejected))
    return Gain(served_ucr, PURSE_UCR)


def take_back() -> Gain:
    """A client asks for all that its hold sets aside, at once or once a part is paid, and shows the hold to the node,
    who posts as late as it may.
    """
    return worst(_take_back(0), _take_back(500))


def _take_back(paid_tokens: int) -> Gain:
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: CAP})
    if paid_tokens:
        market.must(market.settle(market.bill(hold, NODE, 1, decoded(paid_tokens)), NODE, SESSION))
    market.send(CloseHold, SESSION, session=SESSION.public, hold=hold.id)
    market.withdraw(CLIENT, PURSE_UCR)
    market.now_ms = hold.expires_ms + POLICY.grace_ms
    market.pass_time()
    receipt = market.bill(hold, NODE, 2, decoded(1_000))
    market.settle(receipt, NODE, SESSION)
    market.pass_time(HOUR_MS)
    return Gain(market.price_ucr(receipt.units), PURSE_UCR - market.wealth_ucr(CLIENT))


def post_again(seed: int = 1, sessions: int = 6, posts: int = 400) -> Gain:
    """A node posts all its receipts over and over, old ones behind new ones, final or closed or expired or not."""
    random, market, due_ucr = Random(seed), open_market(), 0
    receipts: list[tuple[Receipt, Identity]] = []
    for number in range(sessions):
        key = person("replayed session", number)
        hold = market.opened(CLIENT, key, {NODE: CAP})
        tokens = [20 * seq + random.randint(0, 19) for seq in range(1, 6)]
        bills = [market.bill(hold, NODE, seq, decoded(count), final=seq == 5) for seq, count in enumerate(tokens, 1)]
        receipts += [(bill, key) for bill in bills]
        due_ucr += market.price_ucr(bills[-1].units)
    for _ in range(posts):
        receipt, key = random.choice(receipts)
        market.settle(receipt, NODE, key)
        market.pass_time(random.choice((0, 0, 0, 60_000)))
    for receipt, key in receipts:
        market.settle(receipt, NODE, key)
    return Gain(market.wealth_ucr(OWNER), due_ucr * (MILLION - EXAMPLE.fee_ppm) / MILLION)


def equivocate() -> Gain:
    """Two receipts of one number, both signed by both: whichever comes first, the node is paid for one of them."""
    return worst(*(_equivocate(first, second) for first, second in ((100, 90), (90, 100))))


def _equivocate(first: int, second: int) -> Gain:
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: CAP})
    for tokens in (first, second, first):
        market.settle(market.bill(hold, NODE, 5, decoded(tokens)), NODE, SESSION)
    paid_ucr = PURSE_UCR - market.wealth_ucr(CLIENT)
    return Gain(paid_ucr, market.price_ucr(market.meter.units(decoded(max(first, second)))))


def squat(reserved: int = 20_000, sessions: int = 10, policy: Policy = POLICY) -> Gain:
    """Sessions that take a node's room and have it compute nothing, or a token: each pays for what it reserves."""
    market = open_market(policy)
    flops = reserved * sum(cost.token_flops for cost in MODEL.blocks)
    fee_ucr = EXAMPLE.opening_ppm * EXAMPLE.decode_ppm * flops // MILLION**3 * EXAMPLE.price // MILLION
    for number in range(sessions):
        key = person("squatter's session", number)
        hold = market.opened(CLIENT, key, {NODE: CAP})
        serving = Serving(NODE, hold, market.meter, reserved)
        using = Using(key, hold, NODE, market.meter, reserved)
        for step in steps(0, number % 2):
            using.ask(step)
            serving.run(step)
            using.hear(step)
        signed = agree(serving, using, final=True)
        less = replace(signed.receipt, work=decoded(1), units=1, seq=2)
        market.post(SignedReceipt(less, signed.server_signature, less.sign(key)).pack())
        market.post(signed.pack())
    return Gain(sessions * fee_ucr, PURSE_UCR - market.wealth_ucr(CLIENT))
