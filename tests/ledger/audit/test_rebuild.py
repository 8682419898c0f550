"""The tables are written anew from the log, byte for byte, or nothing is changed."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from nectar_ledger.audit.rebuild import rebuild
from nectar_ledger.audit.verify import verify
from nectar_ledger.core.machine import Draft, Row
from nectar_ledger.errors import DamagedError, LockedError, ReplayError
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.schema import commands, log_entries, log_sealed, metadata
from nectar_ledger.store.tables import TABLES
from nectar_protocol.entries import Resumed
from nectar_protocol.entry import Kind, pack_entry, parse_entry

from tests.ledger.audit_ground import Lived, flip
from tests.ledger.engines import Place
from tests.ledger.forge import dictate, live_a_day


def dump(database: Database) -> dict[str, list[Row]]:
    """Every row of every table."""
    with database.reading.begin() as connection:
        return {table.name: list(read_rows(connection, table)) for table in metadata.sorted_tables}


def test_all_tables_are_made_again_on_either_engine(place: Place, tmp_path: Path) -> None:
    database = place.create()
    _, note = live_a_day(database, tmp_path)
    before = dump(database)
    with database.writing.begin() as connection:
        for table in (*TABLES, commands):
            assert before[table.name], f"the town has nothing in {table}"
            connection.execute(sa.delete(table))
        database.add(connection, commands, [(bytes(16), bytes(32), 1, b"never given")])
    assert verify(database, note).found
    assert rebuild(database).size == len(before["log_entries"])
    assert dump(database) == before
    assert rebuild(database).size == len(before["log_entries"])
    assert dump(database) == before


def test_a_rebuilt_ledger_goes_on(lived: Lived, spoiled: Database) -> None:
    rebuild(spoiled)
    last = parse_entry(lived.drafts[-1].entry)
    dictate(spoiled, [Draft(pack_entry(last.time_ms + 1, Resumed(last.time_ms)))])
    assert verify(spoiled).findings == []


@pytest.mark.parametrize("at", [0, 5, 20])
def test_nothing_is_changed_where_the_log_is_damaged(lived: Lived, spoiled: Database, at: int) -> None:
    is_it = log_entries.c.idx == at
    with spoiled.writing.begin() as connection:
        connection.execute(sa.update(log_entries).where(is_it).values(entry=flip(lived.drafts[at].entry, -1)))
        connection.execute(sa.delete(TABLES[1]).where(TABLES[1].c.id == 1))
    before = dump(spoiled)
    with pytest.raises((DamagedError, ReplayError)):
        rebuild(spoiled)
    assert dump(spoiled) == before


def test_nothing_is_changed_where_a_sealed_part_is_missing(spoiled: Database) -> None:
    with spoiled.writing.begin() as connection:
        connection.execute(sa.delete(log_sealed).where(log_sealed.c.idx > 10))
    before = dump(spoiled)
    with pytest.raises(ReplayError, match="restore it from a backup"):
        rebuild(spoiled)
    assert dump(spoiled) == before


def test_a_log_that_records_a_command_twice_is_not_rebuilt(place: Place, lived: Lived) -> None:
    database = place.create()
    last_ms = parse_entry(lived.drafts[-1].entry).time_ms
    grant = next(draft for draft in lived.drafts if draft.entry[1] == Kind.GRANT)
    dictate(database, [*lived.drafts, Draft(pack_entry(last_ms, parse_entry(grant.entry).body))])
    before = dump(database)
    with pytest.raises(DamagedError, match="twice"):
        rebuild(database)
    assert dump(database) == before


def test_nothing_is_rebuilt_under_a_running_ledger(spoiled: Database) -> None:
    with spoiled.hold(), pytest.raises(LockedError):
        rebuild(spoiled)
