"""A command counts once: no two entries of a log may carry the same ID, and no hold is opened twice."""

from typing import Any

import sqlalchemy as sa

from nectar_ledger.audit.replay import RowsByTable
from nectar_ledger.audit.report import Report
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_answers
from nectar_ledger.store.schema import commands
from nectar_ledger.store.tables import holds

PRUNED_AT = 100_000


class Repeats:
    """Keeps the answers to commands in `scratch`, and of holds those that have not expired: no other is opened."""

    def __init__(self, scratch: Database, connection: sa.Connection, report: Report) -> None:
        self._scratch, self._connection, self._report = scratch, connection, report
        self._holds: dict[bytes, tuple[int, int]] = {}  # account and expiry in ms, by ID

    def take(self, tables: RowsByTable, time_ms: int) -> None:
        """What a part of the log has added; its last entry is of `time_ms`."""
        if rows := tables.get(commands.name):
            self._take_commands(rows)
        for account_id, id, *_, expires_ms, opened, _, _ in tables.get(holds.name, ()):
            first, _ = self._holds.setdefault(id, (account_id, expires_ms))
            if first != account_id:
                self._report.find(f"hold {id.hex()}", f"it has been opened before, with account {first}", opened)
        if len(self._holds) > PRUNED_AT:
            self._holds = {id: known for id, known in self._holds.items() if known[1] >= time_ms}

    def _take_commands(self, rows: list[Any]) -> None:
        answers = read_answers(self._connection, [id for id, *_ in rows])
        known = {id: answer.index for id, (_, answer) in answers.items()}
        fresh = []
        for row in rows:
            id, _, index, _ = row
            first = known.setdefault(id, index)
            if first == index:
                fresh.append(row)
            else:
                self._report.find(f"command {id.hex()}", f"entry {first} has recorded it already", index)
        if fresh:
            self._scratch.add(self._connection, commands, fresh)
        self._report.checked["commands"] += len(rows)
