"""Nodes that compute less than they are paid for, while auditors probe: every verdict and every batch is the core's.

Honest service is best exactly when e^(−m·d) ≤ 1 − c/r: m probes of a batch on average, each of which finds what was
cheated with probability d, and c the cost of a unit that earns r. Probes arrive without memory: their number in a
session is drawn by its units alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from math import exp
from random import Random

from nectar_ledger.core.machine import Outcome as Answered
from nectar_protocol.announcement import Profile
from nectar_protocol.commands import Outcome, Verdict
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.money import MILLION
from nectar_protocol.policy import Policy, Swarm

from benchmarks.economy.gain import Gain, worst
from benchmarks.economy.market import BLOCKS, HOUR_MS, POLICY, Market, decoded, person

SESSIONS = 4  # of a batch
TOKENS = 100  # of a session
PROBED = replace(
    POLICY, swarm=Swarm.OPEN, probes_ppm=3_000_000, batch_units=25_600_000, hold_life_ms=10**11, epoch_ms=10**12
)  # fmt: skip
OWNER, CLIENT, SESSION, AUDITOR = person("owner"), person("client"), person("session"), person("auditor")
CLIENT_UCR = 5 * 10**14
CAP = 10**11  # units


@dataclass(frozen=True)
class Odds:
    """`cost` of a unit in parts of what it earns; `found` is the probability that a probe of a cheated session fails,
    `alarm` that one of an honest session does, and that a second look at the same evidence errs again; `probes` is how
    many there are of a batch on average.
    """

    cost: float = 0.9
    found: float = 0.9
    alarm: float = 0.0
    probes: float = PROBED.probes_ppm / MILLION

    @property
    def honest_is_best(self) -> bool:
        return exp(-self.probes * self.found) <= 1 - self.cost


@dataclass(frozen=True)
class Glance:
    """What a node knows when it decides: how many batches of its have been released, and how many sessions the open
    one has."""

    batches: int
    sessions: int


Plan = Callable[[Glance, Random], bool]  # whether to cheat in the next session


def fraction(part: float) -> Plan:
    return lambda glance, random: random.random() < part


def exit_after(batches: int) -> Plan:
    """Honest for so long, then not once more."""
    return lambda glance, random: glance.batches >= batches


def while_young(glance: Glance, random: Random) -> bool:
    """Cheat until the batch could close; if it does not, no probe has come yet, and the next one had better pass."""
    return glance.sessions < SESSIONS


PLANS: dict[str, Plan] = {
    **{f"cheat {part:.0%}": fraction(part) for part in (0.05, 0.25, 0.5, 1.0)},
    "cheat at the end of a batch": lambda glance, random: glance.sessions >= SESSIONS - 1,
    "cheat while a batch is young": while_young,
}


class Trade:
    """One node after another of one owner, paid by a client who never stops; a node leaves when `leaves` says so.

    `outcome` is what a failed probe comes to: confirmed on the same evidence, or missing.
    """

    def __init__(
        self, odds: Odds, seed: int = 1, policy: Policy = PROBED, outcome: Outcome = Outcome.CONFIRMED
    ) -> None:
        self.odds, self.outcome = odds, outcome
        # What is cheated must not change which probes come, so that plans are compared on the same ones.
        self._probing, self._finding, self._cheating = (Random(f"{seed} {name}") for name in ("probe", "find", "cheat"))
        self.market = Market(policy)
        self.market.name_auditor(AUDITOR)
        self.market.enrich(CLIENT, CLIENT_UCR)
        self._numbers = count()
        self._enter()

    def _enter(self) -> None:
        """With a new identity."""
        self.node = person("node", next(self._numbers))
        self.market.bind(self.node, OWNER)
        session = person("session", next(self._numbers))
        self._session, self._hold = session, self.market.opened(CLIENT, session, {self.node: CAP})
        self._tokens = self._seq = self._released = self._in_batch = 0

    def run(self, plan: Plan, sessions: int, leave_after: int | None = None) -> float:
        """What so many sessions earned, without what the honest ones cost, in µcr. The owner comes back with a new node
        once one has had `leave_after` batches closed.
        """
        cost_ucr, probes = 0.0, self._probes()
        for _ in range(sessions):
            cheats = plan(Glance(self._released, self._in_batch), self._cheating)
            earned_ucr = self._serve()
            cost_ucr += 0 if cheats else self.odds.cost * earned_ucr
            for _ in range(next(probes)):
                self._judge(cheats)
            self.market.pass_time(HOUR_MS // SESSIONS)
            if not self.market.state.nodes[self.node.public].batches:
                self._released, self._in_batch = self._released + 1, 0
                if self._released == leave_after:
                    self._enter()
        return self.market.balance_ucr(OWNER) - cost_ucr

    def _probes(self) -> Iterator[int]:
        """How many fall on each session: a Poisson process in units."""
        at, session = self._probing.expovariate(self.odds.probes / SESSIONS), 0
        while True:
            fallen = 0
            while at < session + 1:
                at += self._probing.expovariate(self.odds.probes / SESSIONS)
                fallen += 1
            yield fallen
            session += 1

    def _serve(self) -> float:
        """A session; what it earns if its batch is released."""
        market = self.market
        self._seq += 1
        self._in_batch += 1
        self._tokens += TOKENS
        work = decoded(TOKENS)._replace(decode_tokens=self._tokens, decode_context=0)
        before = self._hold_units()
        market.must(market.settle(market.bill(self._hold, self.node, self._seq, work), self.node, self._session))
        paid_ucr = market.price_ucr(self._hold_units() - before)
        return paid_ucr * (MILLION - market.policy.fee_ppm) / MILLION

    def _hold_units(self) -> int:
        return self.market.state.holds[self._hold.id].lines[self.node.public].units

    def _judge(self, cheated: bool) -> None:
        """A first look, and a second one at the same evidence if that fails."""
        chance = self.odds.found if cheated else self.odds.alarm
        evidence = next(self._numbers).to_bytes(32, "big")
        if self._finding.random() >= chance:
            self._say(Outcome.PASSED, evidence)
        elif self.outcome is not Outcome.CONFIRMED:
            self._say(self.outcome, evidence)
        else:
            self._say(Outcome.FAILED, evidence)
            again = cheated or self._finding.random() < chance
            self._say(Outcome.CONFIRMED if again else Outcome.PASSED, evidence)

    def _say(self, outcome: Outcome, evidence: bytes) -> None:
        (batch,) = self.market.state.nodes[self.node.public].batches.values()
        self.market.must(verdict(self.market, AUDITOR, self.node, batch.account.id, self._hold, outcome, evidence))


def verdict(
    market: Market, auditor: Identity, node: Identity, batch: int, hold: Hold, outcome: Outcome, evidence: bytes
) -> Answered:
    return market.send(
        Verdict, auditor, auditor=auditor.public, node=node.public, batch=batch, hold=hold.id, start=0, stop=BLOCKS,
        profile=Profile.F32, outcome=outcome, tokens=TOKENS, error_ppm=0, limit_ppm=0, evidence=evidence,
    )  # fmt: skip


def cheat(plan: Plan, odds: Odds = Odds(), sessions: int = 800, policy: Policy = PROBED) -> Gain:
    """What a plan brings against honest service of the same sessions under the same probes."""
    return Gain(Trade(odds, policy=policy).run(plan, sessions), Trade(odds, policy=policy).run(fraction(0), sessions))


def cheat_best(odds: Odds = Odds(), sessions: int = 800) -> Gain:
    return worst(*(cheat(plan, odds, sessions) for plan in PLANS.values()))


def leave(odds: Odds = Odds(), sessions: int = 800, honest_batches: int = 4) -> Gain:
    """Build up a history, cheat in one last batch, leave, and come again under another name."""
    left = Trade(odds).run(exit_after(honest_batches), sessions, leave_after=honest_batches + 1)
    return Gain(left, Trade(odds).run(fraction(0), sessions))


def withhold(odds: Odds = Odds(), sessions: int = 800) -> Gain:
    """Cheat in everything, and show no evidence to whoever asks."""
    silent = Trade(replace(odds, found=1.0), outcome=Outcome.MISSING).run(fraction(1), sessions)
    return Gain(silent, Trade(odds).run(fraction(0), sessions))


def accuse(accusers: int = 5) -> Gain:
    """Auditors and strangers condemn a rival's batches that were honestly earned: nobody has anything of what burns."""
    market, rival = Market(PROBED), person("rival")
    market.enrich(CLIENT, CLIENT_UCR)
    accusing = [AUDITOR, *(person("stranger", number) for number in range(accusers))]
    market.name_auditor(AUDITOR)
    for number, accuser in enumerate(accusing):
        node, session = person("rival's node", number), person("session", number)
        market.bind(node, rival)
        market.bind(person("accuser's node", number), accuser)
        hold = market.opened(CLIENT, session, {node: 10**9})
        market.must(market.settle(market.bill(hold, node, 1, decoded(1_000)), node, session))
        (batch,) = market.state.nodes[node.public].batches.values()
        verdict(market, accuser, node, batch.account.id, hold, Outcome.CONFIRMED, bytes(32))
    market.pass_time(2 * HOUR_MS)
    return Gain(market.wealth_ucr(*accusing))


def harm(accusers: int = 5) -> Gain:
    """Strangers condemn batches that were honestly earned: none burns for the word of who is no auditor."""
    market, rival = Market(PROBED), person("rival")
    market.enrich(CLIENT, CLIENT_UCR)
    node, session = person("rival's node"), person("session")
    market.bind(node, rival)
    hold = market.opened(CLIENT, session, {node: 10**9})
    market.must(market.settle(market.bill(hold, node, 1, decoded(1_000)), node, session))
    before_ucr = market.wealth_ucr(rival)
    (batch,) = market.state.nodes[node.public].batches.values()
    for number in range(accusers):
        verdict(market, person("stranger", number), node, batch.account.id, hold, Outcome.CONFIRMED, bytes(32))
    market.pass_time(2 * HOUR_MS)
    return Gain(before_ucr - market.wealth_ucr(rival))


def misjudge(sessions: int = 800) -> Gain:
    """An auditor that errs: what an honest node loses by it is bounded by how often a second look errs too."""
    odds = Odds(cost=0, alarm=0.05)
    exact = Trade(replace(odds, alarm=0)).run(fraction(0), sessions)
    lost_ucr = exact - Trade(odds).run(fraction(0), sessions)
    return Gain(lost_ucr, 0, exact * 2 * odds.probes * odds.alarm**2)
