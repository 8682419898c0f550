"""What every audit does with a log: from its first entry to its last, once, with everything that looks at entries."""

from collections.abc import Callable, Iterable

import sqlalchemy as sa
from nectar_protocol.entries import Genesis
from nectar_protocol.entry import entry_hash, parse_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import Kind, NoteKey

from nectar_ledger.audit.repeats import Repeats
from nectar_ledger.audit.replay import Replay
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.signatures import Signatures
from nectar_ledger.audit.sums import Balances, Lines, Purses
from nectar_ledger.audit.tables import Tables
from nectar_ledger.audit.tree import Tree
from nectar_ledger.errors import ReplayError
from nectar_ledger.store.database import Database
from nectar_ledger.store.scan import Part

Progress = Callable[[int], object]  # is told how many entries have been looked at


class Walk:
    """`scratch` has the table of commands at least. Without `tables` a log is looked at as anybody can.

    Once an entry breaks a rule nothing behind it can be replayed: its signatures and tiles are checked all the same.
    """

    def __init__(
        self,
        report: Report,
        tree: Tree,
        signatures: Signatures | None,
        scratch: Database,
        scratch_connection: sa.Connection,
        tables: Tables | None = None,
    ) -> None:
        self._report, self._tree, self._signatures, self._tables = report, tree, signatures, tables
        self._repeats = Repeats(scratch, scratch_connection, report)
        self._balances, self._lines, self._purses = Balances(report), Lines(report), Purses(report)
        self._replay = Replay(public=tables is None)
        self._broken = False

    def run(self, parts: Iterable[Part], progress: Progress) -> None:
        for part in parts:
            self._tree.take(part.entries)
            if self._signatures is not None:
                self._signatures.take(part)
            if not self._broken:
                self._apply(part)
            progress(self._tree.frontier.size)
        self._finish()

    def _apply(self, part: Part) -> None:
        try:
            self._replay.take(part)
        except ReplayError as error:
            self._broken = True
            self._report.find("rules", f"{error}. What comes after it cannot be replayed", error.index)
            return
        rows = self._replay.take_rows()
        self._balances.take(rows)
        self._lines.take(rows)
        self._purses.take(rows)
        self._repeats.take(rows, self._replay.state.time_ms)
        if self._tables is not None:
            self._tables.take(rows)

    def _finish(self) -> None:
        report, frontier = self._report, self._tree.frontier
        self._tree.finish()
        report.size, report.root = frontier.size, frontier.root()
        report.checked["entries"] = frontier.size
        if not self._broken:
            report.supply = self._balances.finish()
            if self._tables is not None:
                self._purses.finish(report.supply.pool_ucr)
                self._tables.finish()
        if self._signatures is not None:
            self._signatures.finish()


def identify(first: Part, report: Report) -> NoteKey | None:
    """The log's key, as its first entry has it; None, which is reported, if that is no genesis."""
    try:
        genesis = parse_entry(first.entries[0]).body if first.entries else None
    except ProtocolError:
        genesis = None
    if not isinstance(genesis, Genesis):
        report.find("log", "it does not begin with a genesis", 0)
        return None
    report.ledger = entry_hash(first.entries[0])
    return NoteKey(genesis.network, Kind.NOTE, genesis.log)
