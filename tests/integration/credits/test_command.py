"""`nectar generate` with a weight: it pays, says what that cost, and leaves nothing set aside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nectar_demo import MODEL_FOLDER
from nectar_ledger_client.client import LedgerClient

from tests.integration.credits.conftest import ALICE
from tests.integration.credits.paidnode import PaidNode
from tests.ledger.api.served import Served


@pytest.fixture(scope="session")
def tiny_llama() -> Path:
    """A model that has a tokenizer."""
    return MODEL_FOLDER


@pytest.mark.slow  # a swarm for one command
def test_the_command_pays_and_says_what_it_cost(
    team: list[PaidNode], ledger: Served, wallet_file: Path, client: LedgerClient
) -> None:
    command = [sys.executable, "-m", "nectar.cli", "generate", "A function is", "-m", str(MODEL_FOLDER), "--json"]
    command += ["-p", team[0].address, "-n", "12", "--ledger", ledger.url, "--wallet", str(wallet_file)]
    done = subprocess.run([*command, "--weight", "2", "--budget", "5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert int(told["spent_ucr"]) == 2 * told["units"] > 0
    (hold,) = client.holds_of(ALICE)
    assert hold.weight == 2
    assert (hold.left_ucr, [line.final for line in hold.lines]) == (0, [True, True])  # by the time that it has ended
    free = subprocess.run([*command, "--budget", "5"], capture_output=True, text=True, check=False)
    assert free.returncode == 2
    assert "--budget goes with a --weight" in json.loads(free.stdout)["error"]
