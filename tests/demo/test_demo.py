"""`nectar demo` shows what it says, and leaves no process behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "nectar.cli", "demo"]


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def heed_interrupts() -> None:
    """A shell's background job begins with SIGINT ignored, and hands that on to its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def eventually(true: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_the_demo_finishes_the_sentence_after_the_kill_earns_spends_and_its_books_add_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--json", "--prompt", "If the list is empty,"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["identical_to_local"]
    assert told["text"].startswith("If the list is empty,")
    assert told["killed"] in {hop["node"] for hop in told["route_before"]}
    assert told["killed"] not in {hop["node"] for hop in told["route_after"]}
    assert min(told["stall_ms"], told["swarm_tokens_per_s"], told["local_tokens_per_s"]) > 0
    owners = told["owners"]
    assert set(owners) == {"ada", "ben", "cleo"}
    assert sum(int(owner["earned_ucr"]) > 0 for owner in owners.values()) >= 2  # who was killed may be late
    assert told["spending"]["weight"] == 8
    assert int(told["spending"]["spent_ucr"]) > 0
    assert told["balanced"]
    assert int(told["supply"]["emitted_ucr"]) >= sum(int(owner["has_ucr"]) for owner in owners.values()) > 0
    assert told["checkpoint"]["size"] > 0


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_no_process_is_left_when_the_demo_is_ended_early(number: signal.Signals, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        COMMAND,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    assert eventually(lambda: any("p2pd" in process.name() for process in descendants(demo.pid)))
    started = descendants(demo.pid)
    os.kill(demo.pid, number)
    assert demo.wait(timeout=30) != 0
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
