"""A ledger as a process that tests stop and start, and a till that its courier empties there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.retries import NO_RETRIES
from nectar_node.till.spool import Spool
from nectar_node.till.till import Till
from nectar_protocol.announcement import Profile
from nectar_protocol.entry import pack_entry
from nectar_protocol.identity import Identity, PublicKey

from tests.ledger.api.served import NODE
from tests.ledger.world import START_MS, World


@contextmanager
def process(folder: Path, port: int = 0) -> Iterator[str]:
    """The URL of a ledger that lives in this folder; it is killed at the end."""
    command = [sys.executable, "-m", "tests.ledger.api.process", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ledger:
        assert ledger.stdout is not None
        try:
            yield ledger.stdout.readline().strip()
        finally:
            os.kill(ledger.pid, signal.SIGKILL)


def client_of(url: str) -> AsyncLedgerClient:
    """With the clock of the ledgers of tests."""
    return AsyncLedgerClient(url, retries=NO_RETRIES, clock_s=lambda: START_MS / 1000)


def new_till(folder: Path, world: World, owner: PublicKey | None = None, node: Identity = NODE) -> Till:
    """Of a node that has not met its ledger yet."""
    spool = Spool(folder / "node.till.db")
    return Till(node, world.model.model, Profile.F32, spool, owner, now_ms=lambda: START_MS)


def acquainted(till: Till, world: World) -> Till:
    """It knows the ledger, and what is in force there."""
    till.facts.learn_ledger(pack_entry(START_MS, world.genesis))
    till.facts.learn_policy(world.policy)
    till.facts.learn_model(world.model)
    return till
