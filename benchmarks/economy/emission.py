"""Free work for oneself: receipts that own clients sign for own nodes, for what the epoch emits."""

from dataclasses import replace

from nectar_ledger.core.machine import Rejected
from nectar_protocol.identity import Identity
from nectar_protocol.money import MILLION
from nectar_protocol.policy import Policy, Swarm

from benchmarks.economy.gain import Gain, worst
from benchmarks.economy.market import HOUR_MS, POLICY, Market, decoded, people, person

OPEN = replace(POLICY, swarm=Swarm.OPEN, probes_ppm=3_000_000)
EPOCHS = 4
TOKENS = 100  # of a free session
IDENTITIES = (1, 10, 100)


def befriend_oneself(identities: int = 100, policy: Policy = OPEN) -> Gain:
    """In an open swarm: many free clients of the cheat's sign for work that its nodes never did, and leave every other
    node without a receipt. Nobody's word about free work earns anything there.
    """
    market, cheat, honest = Market(policy), person("cheat"), person("honest owner")
    own, others = people("cheat's node", 4), people("honest node", 4)
    for nodes, owner in ((own, cheat), (others, honest)):
        for node in nodes:
            market.bind(node, owner)
    market.name_auditor(person("auditor"))
    for epoch in range(EPOCHS):
        for number in range(identities // EPOCHS):
            session = person(f"free client of epoch {epoch}", number)
            mine, theirs = own[number % len(own)], others[number % len(others)]
            hold = market.opened(session, session, dict.fromkeys((mine, theirs), policy.free_cap_units))
            market.settle(market.bill(hold, mine, 1, decoded(TOKENS), final=True), mine, session)
        market.pass_time(HOUR_MS)
    return Gain(market.wealth_ucr(cheat))


def split_up(identities: int = 100, policy: Policy = POLICY) -> Gain:
    """In a trusted swarm: the same free work under one name, or under many clients and many nodes."""
    return Gain(_share_ucr(policy, identities), _share_ucr(policy, 1))


def inflate(policy: Policy = POLICY) -> Gain:
    """In a trusted swarm, alone in it: an epoch emits no more than its free work is worth, however little that is."""
    market, owner, node = Market(policy), person("owner"), person("node")
    market.bind(node, owner)
    session = person("free client")
    hold = market.opened(session, session, {node: policy.free_cap_units})
    work = decoded(TOKENS)
    market.must(market.settle(market.bill(hold, node, 1, work, final=True), node, session))
    market.pass_time(HOUR_MS)
    return Gain(market.wealth_ucr(owner), market.meter.units(work) * POLICY.emission_price / MILLION)


def _share_ucr(policy: Policy, identities: int) -> int:
    """What one half of the free work of an epoch earns whose owner has so many nodes and clients for it."""
    scarce = replace(policy, emission_ucr=POLICY.emission_price)  # less than the work is worth: all of it is shared
    market, owner, other = Market(scarce), person("splitter"), person("other owner")
    nodes = people("splitter's node", identities)
    for node in nodes:
        market.bind(node, owner)
    market.bind(person("other node"), other)
    for node in nodes:
        _serve(market, node, 100 * TOKENS // identities)
    _serve(market, person("other node"), 100 * TOKENS)
    market.pass_time(HOUR_MS)
    return market.wealth_ucr(owner)


def _serve(market: Market, node: Identity, tokens: int) -> None:
    """Free sessions of at most TOKENS each, so that their contexts are the same however they are shared out."""
    for number in range(-(-tokens // TOKENS)):
        session = person(f"client of {node.peer_id}", number)
        hold = market.open_hold(session, session, {node: market.policy.free_cap_units})
        if isinstance(hold, Rejected):
            raise RuntimeError(hold.message)
        work = decoded(min(TOKENS, tokens))
        market.must(market.settle(market.bill(hold, node, 1, work, final=True), node, session))


def split_up_far() -> Gain:
    return worst(*(split_up(identities) for identities in IDENTITIES))
