"""What the economy's benchmark measures: the values of its keys, and what is behind them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

import torch

from benchmarks.economy import attacks, crowding, metering, sharing
from benchmarks.economy.load import Load, open_load
from benchmarks.economy.venue import Place, Stage, open_places
from benchmarks.report import Key

KEYS = (
    Key("worst_cheat_gain", "largest gain of a cheat beyond its bound, in credits", 0),
    Key("share_error", "backlogged weights 1:2:4:8 and free: worst deviation of a share by weight", 0.05),
    Key("free_share", "the same: share of those who do not pay (.08 to .12)", 0.12),
    Key("metering_ms", "mid, 1 session: ms per step with a ledger − without", 0.5),
    Key("throughput_cost", "mid, 16 sessions: 1 − (tok/s with a ledger / without)", 0.05),
    Key("paid_p95_ratio", "mid in bf16: a paid session's p95 step under 50 free sessions / idle", 3),
)
Tell = Callable[[str], None]
Measured = tuple[Mapping[str, float], Mapping[str, Any]]  # values of keys, and what is behind them


@dataclass(frozen=True)
class Scale:
    """How much is measured: cheats; rows of an engine and iterations of a real node that are shared (0: no node is);
    rounds of steps, rounds of whole calls and their new tokens; rounds beside a crowd and the steps of each.
    """

    cheats: attacks.Scale
    rows: int
    iterations: int
    step_rounds: int
    call_rounds: int
    call_tokens: int
    crowd_rounds: int
    crowd_steps: int


QUICK = Scale(attacks.QUICK, 20_000, 0, 3, 2, 6, 2, 10)
FULL = Scale(attacks.FULL, 200_000, 400, 60, 7, 32, 10, 30)
STAGES = {"mid": Stage("mid"), "half": Stage("mid", "bf16"), "tiny": Stage("tiny")}


@dataclass(frozen=True)
class Venue:
    """Real nodes by their stages' names, and a crowd of free sessions that waits on one of them, if it is needed."""

    places: Mapping[str, Place]
    crowd: Load | None


def cheats(scale: Scale, tell: Tell) -> Measured:
    """Behind it: each cheat's gain beyond its bound."""
    beyond = {}
    for name, attack in attacks.attacks(scale.cheats).items():
        tell(f"{name} …")
        beyond[name] = attack().beyond
    return {"worst_cheat_gain": max(beyond.values())}, {"cheats": beyond}


def shares(venue: Venue, scale: Scale) -> Measured:
    """Of a real node, in a short run of an engine in this process."""
    engine = asyncio.run(sharing.share(scale.rows))
    raw = {"engine_shares": asdict(engine), "engine_share_error": engine.error}
    node = crowding.share(venue.places["tiny"], scale.iterations) if scale.iterations else engine
    return {"share_error": node.error, "free_share": node.free}, raw | {"shares": asdict(node)}


def steps(venue: Venue, scale: Scale) -> Measured:
    """The mean of a window's steps, each by its median over the rounds. Behind it: the medians, in seconds."""
    window = metering.steps(venue.places["mid"], scale.step_rounds)
    raw = {
        "step_paid_s": [median(step.paid_s) for step in window],
        "step_free_s": [median(step.free_s) for step in window],
    }
    return {"metering_ms": 1e3 * mean(step.added_s for step in window)}, raw


def throughput(venue: Venue, scale: Scale) -> Measured:
    compared = metering.throughput(venue.places["mid"], scale.call_rounds, scale.call_tokens)
    return {"throughput_cost": compared.cost}, {"calls": asdict(compared)}


def delay(venue: Venue, scale: Scale) -> Measured:
    assert venue.crowd is not None
    measured = crowding.delay(venue.places["half"], venue.crowd, scale.crowd_rounds, scale.crowd_steps)
    return {"paid_p95_ratio": measured.crowded_s / measured.idle_s}, {"delay": asdict(measured)}


@dataclass(frozen=True)
class Measurement:
    """The keys that it measures, where, and how."""

    keys: tuple[str, ...]
    stage: str
    run: Callable[[Venue, Scale], Measured]


MEASUREMENTS = (
    Measurement(("metering_ms",), "mid", steps),
    Measurement(("throughput_cost",), "mid", throughput),
    Measurement(("paid_p95_ratio",), "half", delay),
    Measurement(("share_error", "free_share"), "tiny", shares),
)


def run(
    scale: Scale, only: Sequence[str] = (), tell: Tell = lambda line: None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure all keys, or those in `only`: their values, and what is behind them. Nodes start beside the cheats."""
    torch.set_num_threads(1)
    chosen = [measurement for measurement in MEASUREMENTS if not only or set(only) & set(measurement.keys)]
    needed = {one.stage for one in chosen if one.stage != "tiny" or scale.iterations}
    results: list[Measured] = []
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        started = pool.submit(start, stack, needed)
        if not only or "worst_cheat_gain" in only:
            results.append(cheats(scale, tell))
        tell(f"starting {len(needed)} nodes …")
        venue = started.result()
        for measurement in chosen:
            tell(f"measuring {', '.join(measurement.keys)} …")
            results.append(measurement.run(venue, scale))
    values = {name: value for measured, _ in results for name, value in measured.items() if not only or name in only}
    return values, {name: what for _, raw in results for name, what in raw.items()}


def start(stack: ExitStack, needed: set[str]) -> Venue:
    """Until `stack` ends."""
    if not needed:
        return Venue({}, None)
    places = stack.enter_context(open_places({name: STAGES[name] for name in STAGES if name in needed}))
    crowd = stack.enter_context(open_load(places["half"], {0: crowding.CROWD})) if "half" in needed else None
    return Venue(places, crowd)
