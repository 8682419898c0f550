"""The benchmark measures what these tests assert."""

import json
import subprocess
import sys

import pytest

from benchmarks.economy.attacks import QUICK, attacks


@pytest.mark.slow
def test_it_prints_the_worst_gain_of_all_cheats() -> None:
    run = [sys.executable, "-m", "benchmarks.economy", "--quick", "--json", "--only", "worst_cheat_gain"]
    printed = json.loads(subprocess.run(run, capture_output=True, check=True, text=True).stdout)
    assert printed["worst_cheat_gain"] <= 0
    assert set(printed["raw"]["cheats"]) == set(attacks(QUICK))
