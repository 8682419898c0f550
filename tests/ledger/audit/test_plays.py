"""Nothing is found in what the ledger itself has written, whatever parties asked of it."""

from pathlib import Path
from random import Random

import pytest
from nectar_ledger.audit import tables
from nectar_ledger.audit.public import verify_public
from nectar_ledger.audit.rebuild import rebuild
from nectar_ledger.audit.verify import verify
from nectar_ledger.core.machine import Draft
from nectar_ledger.store import scan
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.tables import TABLES
from nectar_protocol.entry import Kind

from tests.ledger.core.play import BY_KEY, SMALL, Play, draw
from tests.ledger.forge import dictate, write_folder
from tests.ledger.world import Book, World

STEPS = 700


def played(seed: int) -> list[Draft]:
    """The log of a ledger that everybody played with."""
    random, world = Random(seed), World(SMALL)
    book, play = Book(world), Play(world)
    play.now_ms = book.now_ms
    for order in play.prologue():
        play.hear(order, book.submit(order))
    for _ in range(STEPS):
        play.batches = [(id, BY_KEY[batch.node.key]) for id, batch in book.state.batches.items()]
        order = play.act(draw(random))
        book.now_ms = play.now_ms
        play.hear(order, book.submit(order))
    return book.log


@pytest.mark.parametrize(("seed", "at_once"), [(1, 4096), (2, 64), (3, 1)])
def test_what_a_ledger_has_written_is_sound(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, at_once: int
) -> None:
    """However many entries are looked at together."""
    monkeypatch.setattr(scan, "PART_ENTRIES", at_once)
    monkeypatch.setattr(tables, "ROWS_IN_MEMORY", 10 * at_once)
    drafts = played(seed)
    assert {Kind.SETTLE, Kind.HOLD_CLOSE, Kind.EMISSION, Kind.BATCH_CLOSE} <= {draft.entry[1] for draft in drafts}
    dictate(empty, drafts)
    private = verify(empty)
    assert private.findings == []
    write_folder([draft.entry for draft in drafts], World(SMALL).keys.log, tmp_path / "log")
    public = verify_public(tmp_path / "log")
    assert public.findings == []
    assert (public.root, public.supply) == (private.root, private.supply)
    with empty.reading.begin() as connection:
        before = {table.name: list(read_rows(connection, table)) for table in TABLES}
    rebuild(empty)
    with empty.reading.begin() as connection:
        assert before == {table.name: list(read_rows(connection, table)) for table in TABLES}
