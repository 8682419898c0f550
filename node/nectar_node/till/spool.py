"""The node's durable outbox: the newest receipt of each line that both have signed, in one SQLite file.

What is put here is in memory at once and on disk with the next `flush`, which the till calls every second and when a
session ends. A line is kept until its hold's grace is over, posted or not: from its newest receipt the line goes on,
and with a final one it never does. What nobody has taken by then is set aside for a week.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from nectar_protocol.errors import ProtocolError
from nectar_protocol.receipt import SignedReceipt

from nectar_node.errors import TillError

ASIDE_MS = 7 * 86_400_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS lines (
    hold BLOB PRIMARY KEY, receipt BLOB NOT NULL, until_ms INTEGER NOT NULL, paid_ucr INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL, waiting_ms INTEGER NOT NULL, state INTEGER NOT NULL, entry INTEGER,
    reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS past (name TEXT PRIMARY KEY, total INTEGER NOT NULL) WITHOUT ROWID;
"""
TOTALS = ("lines", "units", "tokens", "paid_ucr")


class State(IntEnum):
    """What has become of a receipt."""

    KEPT = 0  # not posted yet, or not answered
    POSTED = 1  # the ledger says that it is in an entry
    PROVED = 2  # that entry stands under a checkpoint
    REFUSED = 3


@dataclass(frozen=True)
class Kept:
    """A line's newest receipt. `paid_ucr` is what the node earns by it, `waiting_ms` since when something of the line
    is not posted, `until_ms` when its grace is over; `entry` is the log's, `reason` the ledger's words.
    """

    receipt: SignedReceipt
    until_ms: int
    paid_ucr: int
    changed_ms: int
    waiting_ms: int
    state: State = State.KEPT
    entry: int | None = None
    reason: str = ""

    @property
    def hold(self) -> bytes:
        return self.receipt.receipt.hold

    @property
    def seq(self) -> int:
        return self.receipt.receipt.seq

    @property
    def tokens(self) -> int:
        work = self.receipt.receipt.work
        return work.prefill_tokens + work.decode_tokens + work.backward_tokens


class Spool:
    """Belongs to the loop, but for `flush`, which any thread may call. Raises TillError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[bytes, Kept] = {}
        self.facts: dict[str, bytes] = {}
        self.past = dict.fromkeys(TOTALS, 0)  # of lines that are forgotten
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._new_lines: dict[bytes, Kept | None] = {}  # what the file does not have yet; None: forgotten
        self._new_facts: dict[str, bytes] = {}
        self._past_changed = False
        try:
            self._database = _open(path)
            self._load()
        except (OSError, sqlite3.Error, ProtocolError, ValueError) as error:
            raise TillError(
                f"{path}, which keeps what this node has earned, cannot be used ({error}): put it back from a backup, "
                "or move it away and lose what the ledger has not had"
            ) from error

    def _load(self) -> None:
        for row in self._database.execute("SELECT * FROM lines"):
            kept = _kept(row)
            self.lines[kept.hold] = kept
        self.facts = dict(self._database.execute("SELECT name, data FROM facts"))
        self.past |= dict(self._database.execute("SELECT name, total FROM past"))

    # Receipts

    def put(self, receipt: SignedReceipt, until_ms: int, paid_ucr: int, now_ms: int) -> None:
        """Keep a receipt, unless a newer one of its line is here."""
        old = self.lines.get(receipt.receipt.hold)
        if old is not None and old.seq >= receipt.receipt.seq:
            return
        waiting_ms = old.waiting_ms if old is not None and old.state is State.KEPT else now_ms
        self._set(Kept(receipt, until_ms, paid_ucr, now_ms, waiting_ms))

    def extend(self, hold: bytes, until_ms: int) -> None:
        """The hold's grace ends later."""
        kept = self.lines.get(hold)
        if kept is not None and kept.until_ms < until_ms:
            self._set(replace(kept, until_ms=until_ms))

    def mark(self, kept: Kept, state: State, entry: int | None = None, reason: str = "") -> None:
        """What has become of a receipt; nothing if a newer one of its line came meanwhile."""
        now = self.lines.get(kept.hold)
        if now is not None and now.seq == kept.seq:
            self._set(replace(now, state=state, entry=entry, reason=reason))

    def of(self, state: State) -> list[Kept]:
        """Receipts of which this has become, the longest waiting first."""
        return sorted((kept for kept in self.lines.values() if kept.state is state), key=lambda kept: kept.waiting_ms)

    def prune(self, now_ms: int) -> None:
        """Forget lines whose grace is over and that are settled, and those that nobody took a week ago."""
        for kept in list(self.lines.values()):
            until_ms = kept.until_ms if kept.state is State.PROVED else kept.until_ms + ASIDE_MS
            if now_ms > until_ms:
                del self.lines[kept.hold]
                earned = kept.state in (State.PROVED, State.POSTED)
                with self._lock:  # a line goes and its totals come in the same flush
                    for name, more in zip(TOTALS, _totals(kept), strict=True):
                        self.past[name] += more if earned else 0
                    self._new_lines[kept.hold] = None
                    self._past_changed = True

    def totals(self) -> dict[str, int]:
        """Lines, units, tokens and µcr of all receipts that there were and that the ledger has not refused."""
        sums = dict(self.past)
        for kept in self.lines.values():
            if kept.state is not State.REFUSED:
                for name, more in zip(TOTALS, _totals(kept), strict=True):
                    sums[name] += more
        return sums

    def _set(self, kept: Kept) -> None:
        self.lines[kept.hold] = kept
        with self._lock:
            self._new_lines[kept.hold] = kept

    # Facts

    def save(self, name: str, data: bytes) -> None:
        """Keep something that the node knows, by name."""
        self.facts[name] = data
        with self._lock:
            self._new_facts[name] = data

    # The file

    @property
    def is_flushed(self) -> bool:
        """Is all on disk that was put here?"""
        with self._lock:
            return not (self._new_lines or self._new_facts or self._past_changed)

    def flush(self) -> None:
        """Write what is new, durably. Raises TillError; the next flush tries it again."""
        with self._writing:
            with self._lock:
                lines, self._new_lines = self._new_lines, {}
                facts, self._new_facts = self._new_facts, {}
                past, self._past_changed = dict(self.past) if self._past_changed else {}, False
            try:
                self._write(lines, facts, past)
            except sqlite3.Error as error:
                with self._lock:
                    self._new_lines = lines | self._new_lines
                    self._new_facts = facts | self._new_facts
                    self._past_changed = self._past_changed or bool(past)
                raise TillError(f"cannot write {self.path}: {error}; make room, or receipts may be lost") from error

    def _write(self, lines: dict[bytes, Kept | None], facts: dict[str, bytes], past: dict[str, int]) -> None:
        if not (lines or facts or past):
            return
        with self._database as database:
            gone = [(hold,) for hold, kept in lines.items() if kept is None]
            here = [_row(kept) for kept in lines.values() if kept is not None]
            database.executemany("DELETE FROM lines WHERE hold = ?", gone)
            database.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", here)
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            database.executemany("INSERT OR REPLACE INTO past VALUES (?, ?)", past.items())

    def close(self) -> None:
        """Flush, and close the file; once more does nothing. Raises TillError."""
        try:
            if not self.is_flushed:
                self.flush()
        finally:
            with self._writing:
                self._database.close()


def spool_path(key_file: Path) -> Path:
    """Where the node with this key keeps what it has earned."""
    return key_file.with_name(f"{key_file.stem}.till.db")


def read_spool(path: Path) -> Spool:
    """What is in the file, while another process may be using it: to look at. Raises TillError."""
    if not path.is_file():
        raise TillError(f"there is no {path}: no node with this key has taken holds yet")
    return Spool(path)


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's other files have the rights of this one
    # Every flush has the connection for itself.
    database = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.executescript(SCHEMA)
    return database


def _kept(row: tuple[bytes, bytes, int, int, int, int, int, int | None, str]) -> Kept:
    """Raises ProtocolError or ValueError."""
    _, receipt, until_ms, paid_ucr, changed_ms, waiting_ms, state, entry, reason = row
    signed = SignedReceipt.unpack(receipt)
    return Kept(signed, until_ms, paid_ucr, changed_ms, waiting_ms, State(state), entry, reason)


def _row(kept: Kept) -> tuple[object, ...]:
    return (
        kept.hold, kept.receipt.pack(), kept.until_ms, kept.paid_ucr, kept.changed_ms, kept.waiting_ms, kept.state,
        kept.entry, kept.reason,
    )  # fmt: skip


def _totals(kept: Kept) -> Iterator[int]:
    yield from (1, kept.receipt.receipt.units, kept.tokens, kept.paid_ucr)
