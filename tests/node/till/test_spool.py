"""The spool keeps the newest receipt of each line, whatever happens to its process, until nobody needs it any more."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nectar_node.errors import TillError
from nectar_node.till.spool import ASIDE_MS, Spool, State, read_spool
from nectar_protocol.receipt import SignedReceipt

from tests.node.till.receipts import signed
from tests.node.till.writer import LINES

FAR = 10**15


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.till.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    opened.append(Spool(path))
    yield opened[0]
    for spool in opened:
        spool.close()
    opened.clear()


opened: list[Spool] = []


def again(spool: Spool) -> Spool:
    """As the next process finds it."""
    spool.close()
    opened.append(Spool(spool.path))
    return opened[-1]


def newest(spool: Spool) -> set[SignedReceipt]:
    return {kept.receipt for kept in spool.lines.values()}


def test_what_was_flushed_is_there_for_the_next_process(spool: Spool) -> None:
    spool.put(signed("a", 1), FAR, 7, 5)
    spool.put(signed("b", 3, final=True), FAR, 8, 6)
    spool.save("payee", b"p" * 32)
    before = dict(spool.lines)
    found = again(spool)
    assert found.lines == before
    assert found.facts == {"payee": b"p" * 32}
    assert found.is_flushed


def test_the_files_are_the_owners_alone(spool: Spool) -> None:
    spool.put(signed("a", 1), FAR, 0, 0)
    spool.flush()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.path.parent.iterdir()}
    assert modes == dict.fromkeys(modes, 0o600)
    assert len(modes) > 1  # the log of what is written is one of them


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=30), st.integers(0, 30))
def test_of_each_line_the_newest_is_kept_in_whatever_order_they_come(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[str, int]], flush_at: int
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool") / "till.db")
    for number, (line, seq) in enumerate(puts):
        spool.put(signed(line, seq), FAR, 0, 0)
        if number == flush_at:
            spool.flush()
    spool.close()
    found = Spool(spool.path)
    assert newest(found) == {signed(line, max(seq for at, seq in puts if at == line)) for line, _ in puts}
    found.close()


def test_what_became_of_an_older_receipt_says_nothing_of_the_newer_one(spool: Spool) -> None:
    spool.put(signed("a", 1), FAR, 0, 1)
    (first,) = spool.of(State.KEPT)
    spool.put(signed("a", 2), FAR, 0, 2)
    spool.mark(first, State.PROVED, 7)
    (second,) = spool.of(State.KEPT)
    assert second.seq == 2
    assert second.waiting_ms == 1
    spool.mark(second, State.POSTED, 8)
    assert again(spool).of(State.POSTED)[0].entry == 8


def test_a_line_that_was_proved_waits_again_from_its_next_receipt_on(spool: Spool) -> None:
    spool.put(signed("a", 1), FAR, 0, 1)
    spool.mark(spool.of(State.KEPT)[0], State.PROVED, 1)
    spool.put(signed("a", 2), FAR, 0, 50)
    assert [kept.waiting_ms for kept in spool.of(State.KEPT)] == [50]


def test_lines_are_forgotten_when_their_grace_is_over_and_not_before_they_are_proved(spool: Spool) -> None:
    for line, state in (("kept", State.KEPT), ("proved", State.PROVED), ("refused", State.REFUSED)):
        spool.put(signed(line, 1, units=5, final=True), 100, 4, 0)
        spool.mark(spool.of(State.KEPT)[-1], state, reason="over its cap")
    names = {signed(line, 1).receipt.hold: line for line in ("kept", "proved", "refused")}
    totals = spool.totals()
    assert totals == {"lines": 2, "units": 10, "tokens": 2, "paid_ucr": 8}

    def left() -> set[str]:
        return {names[hold] for hold in spool.lines}

    spool.prune(100)
    assert left() == {"kept", "proved", "refused"}
    spool.prune(101)
    assert left() == {"kept", "refused"}
    assert spool.totals() == totals
    spool.prune(101 + ASIDE_MS)
    assert left() == set()
    found = again(spool)
    assert not found.lines
    assert found.totals() == {"lines": 1, "units": 5, "tokens": 1, "paid_ucr": 4}


def test_a_hold_that_lives_longer_keeps_its_line(spool: Spool) -> None:
    spool.put(signed("a", 1), 100, 0, 0)
    spool.extend(signed("a", 1).receipt.hold, 200)
    spool.extend(signed("a", 1).receipt.hold, 150)
    assert [kept.until_ms for kept in again(spool).lines.values()] == [200]


def test_a_flush_that_fails_loses_nothing(spool: Spool) -> None:
    blocker = sqlite3.connect(spool.path)
    blocker.execute("BEGIN IMMEDIATE")
    spool._database.execute("PRAGMA busy_timeout = 1")
    spool.put(signed("a", 1), FAR, 0, 0)
    with pytest.raises(TillError, match="cannot write"):
        spool.flush()
    spool.put(signed("a", 2), FAR, 0, 0)
    assert not spool.is_flushed
    blocker.rollback()
    blocker.close()
    assert newest(again(spool)) == {signed("a", 2)}


@pytest.mark.parametrize("count", [1, 17, 60])
def test_whoever_is_killed_has_on_disk_all_that_was_flushed(path: Path, count: int) -> None:
    command = [sys.executable, "-m", "tests.node.till.writer", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        flushed = 0
        while flushed < count:
            flushed = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        flushed = max([flushed, *map(int, writer.stdout.read().split())])
    found = Spool(path)
    seqs = sorted(kept.seq for kept in found.lines.values())
    last = int(found.facts["newest"])
    assert flushed <= last <= flushed + 1  # the one that was being written, or not
    assert seqs == list(range(max(1, last - LINES + 1), last + 1))
    for kept in found.lines.values():
        kept.receipt.verify()
    found.close()


def test_a_file_that_is_none_is_refused_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(TillError, match="put it back from a backup"):
        Spool(path)


def test_looking_at_what_is_not_there_makes_nothing(path: Path) -> None:
    with pytest.raises(TillError, match="no node with this key"):
        read_spool(path)
    assert not path.exists()


def test_one_may_look_while_a_node_writes(spool: Spool) -> None:
    spool.put(signed("a", 1, units=3), FAR, 2, 0)
    spool.flush()
    other = read_spool(spool.path)
    assert other.totals()["units"] == 3
    other.close()
    spool.put(signed("a", 2), FAR, 0, 0)
    spool.flush()
