"""Whatever is changed in a log, its tiles, its head or its sealed parts, an audit names it."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.tree import Known, Tree
from nectar_ledger.audit.verify import verify
from nectar_ledger.errors import DamagedError, VersionError
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.schema import log_entries, log_head, log_sealed, log_tiles
from nectar_protocol.entry import Kind
from nectar_protocol.merkle import HASH_SIZE, Frontier, Hash, leaf_hash
from nectar_protocol.tiles import Tile, grow

from tests.ledger.audit_ground import Lived, flip

Places = set[tuple[str, int | None]]


def change(database: Database, *statements: sa.Executable) -> Places:
    """What is found after these."""
    with database.writing.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    return {(finding.place, finding.index) for finding in verify(database, signatures=False).findings}


def put_entry(index: int, entry: bytes) -> sa.Executable:
    return sa.update(log_entries).where(log_entries.c.idx == index).values(entry=entry)


def test_what_nobody_has_changed_is_sound(lived: Lived, spoiled: Database) -> None:
    report = verify(spoiled, lived.note)
    assert (report.findings, report.found) == ([], 0)
    assert report.ledger == lived.town.world.ledger
    assert report.size == report.checked["entries"] == len(lived.drafts)
    assert report.supply is not None
    assert report.supply.emitted_ucr > report.supply.burned_ucr > 0


def test_a_byte_of_any_entry_is_found(lived: Lived, spoiled: Database) -> None:
    changed = [
        put_entry(index, flip(draft.entry, index * 7 % len(draft.entry))) for index, draft in enumerate(lived.drafts)
    ]
    found = change(spoiled, *changed)
    assert {("tile/0/000.p/28", index) for index in range(len(lived.drafts))} <= found
    assert ("rules", 0) in found


def test_an_entry_that_is_gone_is_found(lived: Lived, spoiled: Database) -> None:
    size = len(lived.drafts)
    found = change(spoiled, sa.delete(log_entries).where(log_entries.c.idx == 9))
    assert ("log_head", 9) in found
    assert {(f"log_entries {index}", None) for index in range(10, size)} <= found


def test_the_last_entry_that_is_gone_is_found(lived: Lived, spoiled: Database) -> None:
    last = len(lived.drafts) - 1
    found = change(spoiled, sa.delete(log_entries).where(log_entries.c.idx == last))
    assert {("log_head", last), (f"checkpoints {last + 1}", None)} <= found


def test_an_entry_too_many_is_found(lived: Lived, spoiled: Database) -> None:
    size = len(lived.drafts)
    found = change(spoiled, sa.insert(log_entries).values(idx=size, entry=lived.drafts[-1].entry))
    assert ("log_head", size + 1) in found
    assert ("log_entries -1", None) in change(spoiled, sa.insert(log_entries).values(idx=-1, entry=b"before all"))


@pytest.mark.parametrize("column", ["id", "size", "frontier", "time_ms"])
def test_a_wrong_head_is_found(lived: Lived, spoiled: Database, column: str) -> None:
    with spoiled.writing.begin() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        head = connection.execute(sa.select(log_head)).one()
    value = flip(head.frontier, 40) if column == "frontier" else getattr(head, column) + 1
    assert change(spoiled, sa.update(log_head).values({column: value})) == {("log_head", len(lived.drafts))}
    assert ("log_head", None) in change(spoiled, sa.delete(log_head))


def test_wrong_tiles_are_found(spoiled: Database) -> None:
    with spoiled.reading.begin() as connection:
        hashes = connection.execute(sa.select(log_tiles.c.hashes)).scalar_one()
    path = "tile/0/000.p/28"
    assert change(spoiled, sa.update(log_tiles).values(hashes=flip(hashes, 11 * HASH_SIZE))) == {(path, 11)}
    assert change(spoiled, sa.update(log_tiles).values(hashes=hashes + bytes(HASH_SIZE))) == {(path, None)}
    assert change(spoiled, sa.update(log_tiles).values(hashes=hashes[:-1])) == {(path, None)}
    assert change(spoiled, sa.delete(log_tiles)) == {(path, None)}
    tiles = [{"level": level, "n": n, "hashes": hashes} for level, n in ((0, 0), (0, 1), (1, 0), (9, 0))]
    found = change(spoiled, sa.insert(log_tiles).values(tiles))
    assert found == {("log_tiles 0/1", None), ("log_tiles 1/0", None), ("log_tiles 9/0", None)}


def test_wrong_sealed_parts_are_found(lived: Lived, spoiled: Database) -> None:
    sealed = {index: draft.sealed for index, draft in enumerate(lived.drafts) if draft.sealed is not None}
    assert {lived.drafts[index].entry[1] for index in sealed} == {Kind.HOLD, Kind.VERDICT}
    for index in (min(sealed), max(sealed)):
        part, is_it = sealed[index], log_sealed.c.idx == index
        for at in (0, len(part) - 1):
            found = change(spoiled, sa.update(log_sealed).where(is_it).values(sealed=flip(part, at)))
            assert found == {("rules", index)}
        assert change(spoiled, sa.delete(log_sealed).where(is_it)) == {("rules", index)}
        assert change(spoiled, sa.insert(log_sealed).values(idx=index, sealed=part)) == set()
    beside = sa.insert(log_sealed).values([{"idx": 1, "sealed": b"of none"}, {"idx": 99, "sealed": b"of none"}])
    assert change(spoiled, beside) == {("log_sealed", 1), ("log_sealed 99", None)}


def test_entries_behind_a_broken_one_are_still_looked_at(lived: Lived, spoiled: Database) -> None:
    """The second cannot be replayed, and the last has changed too."""
    last = len(lived.drafts) - 1
    found = change(spoiled, put_entry(1, b"no entry"), put_entry(last, flip(lived.drafts[last].entry, 4)))
    assert {("rules", 1), ("tile/0/000.p/28", 1), ("tile/0/000.p/28", last)} <= found
    assert not {place for place, _ in found} & {"transfers", "accounts"}


def test_an_empty_log_is_no_ledger(empty: Database) -> None:
    (finding,) = verify(empty).findings
    assert finding.message == "it does not begin with a genesis"


def test_what_is_no_ledgers_database_is_refused(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(VersionError):
        verify(database)
    database.writing.dispose()
    (tmp_path / "noise.db").write_bytes(b"noise" * 1000)
    with pytest.raises(DamagedError, match="cannot be read"):
        verify(open_database(f"sqlite:///{tmp_path / 'noise.db'}"))


@given(st.lists(st.integers(1, 400), max_size=6), st.data())
def test_a_tree_grows_as_the_log_did(cuts: list[int], data: st.DataObject) -> None:
    """Whatever parts it comes in, its tiles and its checkpoints are those of the whole."""
    entries = [index.to_bytes(4, "big") for index in range(sum(cuts))]
    whole = Frontier()
    tiles = grow(whole, map(leaf_hash, entries))
    sizes = sorted(data.draw(st.lists(st.integers(0, len(entries)), max_size=8)))
    checkpoints = [Known(size, root_over(entries[:size]), str(size)) for size in sizes]
    report, start = Report(), 0
    tree = Tree(lambda tile: tiles.get((tile.level, tile.index)), checkpoints, report)
    for cut in cuts:
        tree.take(entries[start : start + cut])
        start += cut
    tree.finish()
    assert (report.findings, tree.frontier.root()) == ([], whole.root())
    assert report.checked["tiles"] == len(tiles)
    assert report.checked["checkpoints"] == len(sizes)


def test_a_wrong_hash_of_a_full_tile_is_found() -> None:
    entries = [index.to_bytes(4, "big") for index in range(70_000)]
    tiles = grow(Frontier(), map(leaf_hash, entries))
    tiles[0, 200] = flip(tiles[0, 200], 33)
    tiles[1, 1] = flip(tiles[1, 1], 0)
    report = Report()
    tree = Tree(lambda tile: tiles.get((tile.level, tile.index)), (), report)
    tree.take(entries)
    tree.finish()
    assert [(finding.place, finding.index) for finding in report.findings] == [
        (Tile(0, 200).path, 200 * 256 + 1), (Tile(1, 1, 17).path, None),
    ]  # fmt: skip


def root_over(entries: list[bytes]) -> Hash:
    frontier = Frontier()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier.root()
