"""Credits from nothing: paying oneself, fresh accounts, mere claims."""

from random import Random

from nectar_ledger.core.machine import Rejected
from nectar_protocol.identity import Identity
from nectar_protocol.money import MILLION
from nectar_protocol.policy import EXAMPLE, Policy
from nectar_protocol.receipt import Work

from benchmarks.economy.gain import Gain
from benchmarks.economy.market import HOUR_MS, POLICY, Market, decoded, people, person

WEIGHTS = (1, 2, 4, 8)
STAKE_UCR = 10**10
CAP = 10**8  # units


def wash(seed: int = 1, payments: int = 60, policy: Policy = POLICY) -> Gain:
    """Accounts of one person pay this person's own nodes, round after round, in any pattern: that costs the fee."""
    random, market = Random(seed), Market(policy)
    accounts, nodes = people("washer", 4), people("washer's node", 6)
    for number, node in enumerate(nodes):
        market.bind(node, accounts[number % len(accounts)])
    for account in accounts:
        market.enrich(account, STAKE_UCR)
    before_ucr, volume_ucr = market.wealth_ucr(*accounts), 0
    for number in range(payments):
        payer, weight = random.choice(accounts), random.choice(WEIGHTS)
        chosen = random.sample(nodes, random.randint(1, 3))
        volume_ucr += _pay(market, random, payer, person("washer's session", number), chosen, weight)
        market.pass_time(random.choice((0, HOUR_MS)))
        for account in accounts:
            if earned_ucr := market.balance_ucr(account):
                market.fund(account, earned_ucr)
    market.pass_time(2 * HOUR_MS)
    fee_ucr = volume_ucr * EXAMPLE.fee_ppm / MILLION
    return Gain(market.wealth_ucr(*accounts), before_ucr, -fee_ucr)


def _pay(market: Market, random: Random, payer: Identity, session: Identity, nodes: list[Identity], weight: int) -> int:
    """A session that is paid to its end, in a few receipts; what it costs, in µcr."""
    hold = market.open_hold(payer, session, dict.fromkeys(nodes, CAP), weight)
    if isinstance(hold, Rejected):
        return 0
    paid_ucr = 0
    for node in nodes:
        tokens = 0
        for seq in range(1, random.randint(2, 4)):
            tokens += random.randint(1, 400)
            market.must(market.settle(market.bill(hold, node, seq, decoded(tokens)), node, session))
        last = market.bill(hold, node, 9, decoded(tokens), final=True)
        market.must(market.settle(last, node, session))
        paid_ucr += market.price_ucr(last.units, weight)
    return paid_ucr


def sign_up(accounts: int = 50) -> Gain:
    """Fresh accounts try to spend, withdraw and lend each other what they never had, beside a pool that is full."""
    market = Market()
    market.enrich(person("bystander"), STAKE_UCR)
    cheat, node = person("cheat"), person("cheat's node")
    market.bind(node, cheat)
    fresh = people("fresh account", accounts)
    for number, account in enumerate(fresh):
        session = person("fresh session", number)
        market.withdraw(account, 1)
        market.fund(account, 1)
        hold = market.open_hold(account, session, {node: CAP})
        if not isinstance(hold, Rejected):
            market.settle(market.bill(hold, node, 1, decoded(1_000), final=True), node, session)
    return Gain(market.wealth_ucr(cheat, *fresh))


def claim(nodes: int = 20, hours: int = 24, policy: Policy = POLICY) -> Gain:
    """Nodes that are bound, stay for long, ask for receipts over no work, and do nothing."""
    market, cheat = Market(policy), person("cheat")
    claimed = people("claimed node", nodes)
    for number, node in enumerate(claimed):
        market.bind(node, cheat)
        session = person("idle session", number)
        hold = market.opened(session, session, {node: 1})
        market.settle(market.bill(hold, node, 1, Work()), node, session)
    for _ in range(hours):
        market.pass_time(HOUR_MS)
    return Gain(market.wealth_ucr(cheat))
