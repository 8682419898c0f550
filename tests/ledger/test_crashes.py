"""Nothing acknowledged is lost and nothing counts twice, whoever is killed in the middle of it."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from nectar_protocol.checkpoint import Checkpoint

from tests.ledger.auditing import Audited, audit
from tests.ledger.engines import Place, PostgresServer
from tests.ledger.ingest import LINES, SEQS, THREADS, ingest, open_signer

ROOT = Path(__file__).parents[2]
ACKNOWLEDGEMENTS = LINES * SEQS + THREADS * SEQS
rounds = pytest.mark.parametrize("round_", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])


class Acknowledged(NamedTuple):
    """What a process had promised when it ended."""

    seqs: dict[int, int]
    payments: set[bytes]
    signed: int


def ingest_until(place: Place, folder: Path, count: int, kill: Callable[[subprocess.Popen[str]], None]) -> Acknowledged:
    """Start a process that ingests without end, and `kill` it once it has acknowledged `count` commands."""
    command = [sys.executable, "-m", "tests.ledger.ingest", place.url, str(folder)]
    said: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                said.append(line)
                if len(said) == count:
                    kill(process)
                    process.wait(60)
            assert len(said) >= count, process.stderr.read()
        finally:
            process.kill()
    return read(said)


def read(said: list[str]) -> Acknowledged:
    seqs: dict[int, int] = {}
    payments, signed = set(), 0
    for line in said:
        match line.split():
            case ["total", number, seq]:
                seqs[int(number)] = max(seqs.get(int(number), 0), int(seq))
            case ["paid", id]:
                payments.add(bytes.fromhex(id))
            case ["signed", size]:
                signed = int(size)
    return Acknowledged(seqs, payments, signed)


def check_nothing_lost(acknowledged: Acknowledged, audited: Audited) -> None:
    lost = {line: seq for line, seq in acknowledged.seqs.items() if audited.seq(line) < seq}
    assert not lost
    assert {(id,) for id in acknowledged.payments} <= set(audited.tables["commands"])
    assert acknowledged.signed <= audited.size


def check_end(place: Place, folder: Path, acknowledged: Acknowledged) -> None:
    """What is there now holds all promises, and sending everything twice makes it whole, once."""
    database = place.open()
    check_nothing_lost(acknowledged, audit(database))
    ingest(database, folder, lambda text: None)
    once = audit(database)
    ingest(database, folder, lambda text: None)
    assert audit(database) == once
    assert {line: once.seq(line) for line in range(LINES)} == dict.fromkeys(range(LINES), SEQS)
    assert Checkpoint.parse(open_signer(database, folder).sign().text).size == once.size


@rounds
def test_kill_9_loses_nothing_acknowledged_and_a_resend_changes_nothing(
    place: Place, tmp_path: Path, round_: int
) -> None:
    place.create()
    count = random.Random(round_).randint(1, ACKNOWLEDGEMENTS // 2)
    acknowledged = ingest_until(place, tmp_path, count, subprocess.Popen.kill)
    check_end(place, tmp_path, acknowledged)


@pytest.fixture
def running(postgres: PostgresServer) -> Iterator[PostgresServer]:
    yield postgres
    postgres.start_again()


@rounds
@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_an_immediate_stop_of_postgresql_loses_nothing_and_ends_the_process(
    place: Place, running: PostgresServer, tmp_path: Path, round_: int
) -> None:
    place.create()
    place.close()
    count = random.Random(round_).randint(1, ACKNOWLEDGEMENTS // 2)
    acknowledged = ingest_until(place, tmp_path, count, lambda process: running.stop_immediately())
    running.start_again()
    check_end(place, tmp_path, acknowledged)
