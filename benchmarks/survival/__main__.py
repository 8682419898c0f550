"""Do sessions survive? Nodes and their p2pds are killed or stopped under running sessions, all drawn from a seed.

On the tiny model three spans with three nodes each: one process of the route is lost, or two at once, or a second one
during the replay of the first, while a prompt is computed or between tokens; greedy, with drafts that are rolled back,
and with beams. On the mid model four spans with two nodes each and dead peers only, for the stall.

    python -m benchmarks.survival [--kills 200] [--seed 0] [--credits] [--quick] [--json]
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.survival.plan import Shot, plan, quick_plan
from benchmarks.survival.play import Result, play
from benchmarks.survival.verdict import Verdict

REPLAY_MS = 1 / 8  # what a replayed token may cost, and is not counted as a stall


def stall_tokens(result: Result) -> float:
    """A stall in normal tokens, its replay counted at 1 ms per 8 tokens."""
    return (result.stall_ms - REPLAY_MS * result.replayed) / result.step_ms


def summary(results: list[Result]) -> dict[str, Any]:
    """The keys of the benchmark. Stalls are of rounds whose loss came before the last token."""
    repaired = [result for result in results if result.repaired]
    dead = [stall_tokens(one) for one in repaired if one.size == "mid" and one.round.dead_peer]
    stopped = [one.stall_ms for one in repaired if one.round.stopped_peer]
    return {
        "kills": sum(result.kills for result in results),
        "wrong_tokens": sum(result.verdict is Verdict.WRONG for result in results),
        "hangs": sum(result.hung for result in results),
        "stall_tokens_median": round(statistics.median(dead or [0.0]), 3),
        "ties": sum(result.verdict is Verdict.TIE for result in results),
        "errors": sum(bool(result.error) for result in results),
        "repaired": len(repaired),
        "rounds": len(results),
        "stall_ms_median_stopped": statistics.median(stopped or [0.0]),
        "stall_ms_worst_stopped": max(stopped, default=0.0),
    }


def describe(result: Result) -> str:
    def shot(one: Shot) -> str:
        return f"{one.signal} hop {one.hop} {one.target}"

    plan = result.round
    kills = " and ".join(map(shot, plan.shots))
    if again := plan.during_replay:
        kills += f", then {again.signal} {'hop +' + str(again.hop) if again.hop else 'replacement'} {again.target}"
    when = f"at step {plan.token}" if plan.token else "in the prompt"
    state = "HUNG" if result.hung else result.error or result.verdict.value
    return (
        f"{result.size} {plan.number:3} {plan.way:6} {kills} {when}: {state}, {result.kills} sent, "
        f"stall {result.stall_ms:.0f} ms, usual step {result.step_ms:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill nodes under running sessions.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="ten kills, on the mid model only")
    parser.add_argument("--credits", action="store_true", help="sessions under holds of a ledger, which nodes bill")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: list[Result] = []
    tell = partial(print, file=sys.stderr, flush=True)
    for campaign in quick_plan(options.seed) if options.quick else plan(options.kills, options.seed):
        results += play(campaign, lambda result: tell(describe(result)), credits=options.credits)
    keys = summary(results)
    if options.json:
        rounds = [{**asdict(result), "verdict": result.verdict.value} for result in results]
        print(json.dumps({"details": rounds, **keys}))
    else:
        print(*(f"{key:26} {value}" for key, value in keys.items()), sep="\n")


if __name__ == "__main__":
    main()
