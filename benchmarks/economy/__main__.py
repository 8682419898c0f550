"""Does the economy hold against those who play against it, and what does it cost those who do not?

Every cheat is a seeded run that drives the product's own rules: the ledger's core, metering, the till's lines and the
client's tabs, the scheduler, audits. Its gain over honest behaviour, beyond what its threat's bound allows, must not be
above zero. What the ledger costs, and who gets how much of a node, is measured on real nodes with a real ledger, each
a process of its own; in a short run an engine in this process stands for the node that is shared.

    python -m benchmarks.economy [--quick] [--json] [--only KEY …]
"""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.economy.measurements import FULL, KEYS, QUICK, run
from benchmarks.report import print_json, print_table


def main() -> None:
    names = [key.name for key in KEYS]
    parser = argparse.ArgumentParser(description="Play against the economy, and see what it costs.")
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer rounds, a smaller crowd of cheats")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--only", nargs="+", choices=names, default=(), metavar="KEY", help=f"of {', '.join(names)}")
    options = parser.parse_args()
    began_s = time.perf_counter()

    def tell(line: str) -> None:
        print(f"{time.perf_counter() - began_s:5.1f} s  {line}", file=sys.stderr, flush=True)

    values, raw = run(QUICK if options.quick else FULL, options.only, tell)
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
