"""The third scene: an owner spends what its node has earned, beside somebody who pays nothing."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nectar_demo import MODEL_FOLDER
from nectar_demo.cast import Cast
from nectar_demo.crowd import TOKENS
from nectar_demo.errors import DemoError
from nectar_demo.processes import clean_environment

WEIGHT = 8
GENERATE_S = 90.0


@dataclass(frozen=True)
class Spending:
    """Two `nectar generate` of the same page, at the same time in the same crowd: one pays, the other nothing."""

    who: str
    weight: int
    paid_s: float
    free_s: float
    spent_ucr: int


def spend(cast: Cast, who: str, page: str) -> Spending:
    """Raises DemoError if one of the two does not get its text."""
    paying = ["--weight", str(WEIGHT), "--wallet", str(cast.wallet(who))]
    passer_by = cast.folder / "passer-by"
    passer_by.mkdir(exist_ok=True)
    processes = [generate(cast, cast.wallet(who).parent, page, paying), generate(cast, passer_by, page, [])]
    paid, free = (result_of(process) for process in processes)
    return Spending(who, WEIGHT, paid["seconds"], free["seconds"], int(paid["spent_ucr"]))


def generate(cast: Cast, folder: Path, page: str, options: list[str]) -> "subprocess.Popen[str]":
    """The command as its user would type it there."""
    command = [sys.executable, "-m", "nectar.cli", "generate", page, "-m", str(MODEL_FOLDER), "-n", str(TOKENS)]
    command += [part for address in cast.addresses for part in ("-p", address)]
    command += ["--ledger", cast.url, "--json", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, cwd=folder, env=clean_environment(), start_new_session=True
    )


def result_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        out, errors = process.communicate(timeout=GENERATE_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise DemoError(f"nectar generate did not end within {GENERATE_S:.0f} s") from error
    if process.returncode:
        raise DemoError(f"nectar generate failed: {(out + errors)[-500:]}")
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result
