"""All cheats by name, as they are measured."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.economy import emission, forgery, probing, queueing, shortcuts, spending, washing
from benchmarks.economy.gain import Gain

Attack = Callable[[], Gain]


@dataclass(frozen=True)
class Scale:
    """How long cheats go on: payments to oneself, holds that are spent twice, posts of old receipts, and sessions under
    probes.
    """

    payments: int
    holds: int
    posts: int
    sessions: int


FULL, QUICK = Scale(500, 300, 4_000, 8_000), Scale(60, 30, 400, 800)


def attacks(scale: Scale) -> dict[str, Attack]:
    odds, sessions = probing.Odds(), scale.sessions
    return {
        "pay one's own nodes": partial(washing.wash, payments=scale.payments),
        "fresh accounts": washing.sign_up,
        "claims without work": washing.claim,
        "be one's own free clients, open swarm": emission.befriend_oneself,
        "split free work among names, trusted swarm": emission.split_up,
        "an epoch with little work, trusted swarm": emission.inflate,
        "bill more than was done": spending.overbill,
        "overstate free units": spending.overstate,
        "refuse the last signature": spending.refuse_last,
        "spend twice": partial(spending.spend_twice, holds=scale.holds),
        "take a hold back": spending.take_back,
        "post receipts again": partial(spending.post_again, posts=scale.posts),
        "two receipts of one number": spending.equivocate,
        "squat on KV": spending.squat,
        **{name: partial(probing.cheat, plan, odds, sessions) for name, plan in probing.PLANS.items()},
        "cheat once and leave": partial(probing.leave, odds, sessions),
        "withhold evidence": partial(probing.withhold, odds, sessions),
        "condemn a rival, to gain": probing.accuse,
        "condemn a rival, to harm": probing.harm,
        "an auditor that errs": partial(probing.misjudge, sessions),
        "pad steps": shortcuts.pad_steps,
        "feign replays": shortcuts.feign_replays,
        "refuse to sign a replay": shortcuts.refuse_replay,
        "bill before delivering": shortcuts.bill_unheard,
        "starve others": queueing.starve,
        "flood the free class": queueing.flood,
        "forge the log": forgery.forge,
    }
