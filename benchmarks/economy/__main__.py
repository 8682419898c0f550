"""Does the economy hold against those who play against it?

Every cheat is a seeded run that drives the product's own rules: the ledger's core, metering, the till's lines and the
client's tabs, the scheduler, audits. Its gain over honest behaviour, beyond what its threat's bound allows, must not be
above zero.

    python -m benchmarks.economy [--quick] [--json] [--only KEY …]
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.economy.attacks import FULL, QUICK, attacks
from benchmarks.economy.sharing import share
from benchmarks.report import Key, print_json, print_table

KEYS = (
    Key("worst_cheat_gain", "largest gain of a cheat beyond its bound, in credits", 0),
    Key("share_error", "one engine, four times the demand: worst deviation of a share by weight", 0.05),
    Key("free_share", "the same: share of those who do not pay", 0.08, True),
)

Tell = Callable[[str], None]
Measured = tuple[Mapping[str, float], Mapping[str, Any]]  # values of keys, and what is behind them


def cheats(quick: bool, tell: Tell) -> Measured:
    """Behind it: each cheat's gain beyond its bound."""
    beyond = {}
    for name, attack in attacks(QUICK if quick else FULL).items():
        tell(f"{name} …")
        beyond[name] = attack().beyond
    return {"worst_cheat_gain": max(beyond.values())}, {"cheats": beyond}


def shares(quick: bool, tell: Tell) -> Measured:
    tell("sharing one engine …")
    measured = asyncio.run(share(20_000 if quick else 200_000))
    return {"share_error": measured.error, "free_share": measured.free}, {"shares": measured.by_weight}


MEASURES: dict[str, Callable[[bool, Tell], Measured]] = {
    "worst_cheat_gain": cheats,
    "share_error": shares,
    "free_share": shares,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Play against the economy.")
    parser.add_argument("--quick", action="store_true", help="within a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES), metavar="KEY")
    options = parser.parse_args()
    began_s = time.perf_counter()

    def tell(line: str) -> None:
        print(f"{time.perf_counter() - began_s:5.1f} s  {line}", file=sys.stderr, flush=True)

    values: dict[str, float] = {}
    raw: dict[str, Any] = {}
    for measure in dict.fromkeys(MEASURES[key] for key in options.only):
        measured, behind = measure(options.quick, tell)
        values |= {key: value for key, value in measured.items() if key in options.only}
        raw |= behind
    if options.json:
        print_json(values, raw=raw)
    else:
        print_table(KEYS, values, caption(raw))


def caption(raw: Mapping[str, Any]) -> str:
    """The cheats that come nearest to their bounds."""
    nearest = sorted(raw.get("cheats", {}).items(), key=lambda item: -item[1])[:3]
    return "Nearest to their bounds: " + "; ".join(f"{name} {gain:+.2f}" for name, gain in nearest) if nearest else ""


if __name__ == "__main__":
    main()
