"""Anybody audits a ledger with its log's files alone, and notices whatever is changed in them."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nectar_ledger.audit.public import verify_public
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.verify import verify
from nectar_ledger.core.machine import Draft
from nectar_ledger.errors import ForkError, NotFoundError
from nectar_ledger.log.export import export_tiles
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.database import Database
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.entry import SALT_SIZE, Kind, pack_entry, parse_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import Kind as NoteKind
from nectar_protocol.note import Note, NoteKey, cosign_text

from tests.ledger.audit_ground import Lived, flip
from tests.ledger.forge import dictate, write_folder
from tests.ledger.world import ORIGIN, person

BUNDLE, TILE = "tile/entries/000.p/28", "tile/0/000.p/28"


@pytest.fixture
def folder(lived: Lived, spoiled: Database, tmp_path: Path) -> Path:
    """The town's log, exported."""
    export_tiles(LogReader(spoiled), lived.note, tmp_path / "log")
    return tmp_path / "log"


def key_of(lived: Lived) -> NoteKey:
    return NoteKey(ORIGIN, NoteKind.NOTE, lived.town.world.keys.log.public)


def places(report: Report) -> set[str]:
    return {finding.place for finding in report.findings}


def test_what_anybody_sees_is_what_the_ledger_says(lived: Lived, spoiled: Database, folder: Path) -> None:
    private, public = verify(spoiled), verify_public(folder, key_of(lived))
    assert public.findings == []
    for name in ("ledger", "size", "root", "supply"):
        assert getattr(public, name) == getattr(private, name)
    assert 0 < public.checked["signatures"] < private.checked["signatures"]


def test_an_export_has_nothing_that_is_still_sealed(lived: Lived, folder: Path) -> None:
    """No request for a hold, and no verdict of a batch that is open."""
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    requests = [draft.sealed for draft in lived.drafts if draft.sealed is not None and draft.entry[1] == Kind.HOLD]
    assert requests
    for sealed in requests:
        assert sealed[:SALT_SIZE] not in content
        assert sealed[SALT_SIZE:] not in content
    assert lived.town.secret.signed.pack() not in content


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_is_noticed(lived: Lived, folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(["checkpoint", BUNDLE, TILE]))
    right = path.read_bytes()
    at = data.draw(st.integers(0, len(right) - 1))
    path.write_bytes(right[:at] + bytes([right[at] ^ data.draw(st.integers(1, 255))]) + right[at + 1 :])
    try:
        assert verify_public(folder, key_of(lived), threads=1).found
    except ProtocolError:
        assert path.name == "checkpoint"
    finally:
        path.write_bytes(right)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_log_says_an_audit_of_it_ends(lived: Lived, tmp_path: Path, data: st.DataObject) -> None:
    """Entries changed, dropped, repeated and put elsewhere, under the log's own signature."""
    entries = [draft.entry for draft in lived.drafts]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(entries) - 1))
        match data.draw(st.sampled_from(["change", "drop", "repeat", "move"])):
            case "change":
                where = data.draw(st.integers(0, len(entries[at]) - 1))
                byte = bytes([data.draw(st.integers(0, 255))])
                entries[at] = entries[at][:where] + byte + entries[at][where + 1 :]
            case "drop" if len(entries) > 1:
                del entries[at]
            case "repeat":
                entries.insert(data.draw(st.integers(0, len(entries))), entries[at])
            case "move":
                entries.insert(data.draw(st.integers(0, len(entries) - 1)), entries.pop(at))
    write_folder(entries, lived.town.world.keys.log, tmp_path)
    report = verify_public(tmp_path, threads=1)
    assert report.size == len(entries)
    assert report.supply is not None or report.found


def test_missing_and_wrong_files_are_named(folder: Path) -> None:
    for path in (BUNDLE, TILE):
        right = (folder / path).read_bytes()
        (folder / path).unlink()
        assert path in places(verify_public(folder))
        for wrong in (right[:-1], right + b"\0", b""):
            (folder / path).write_bytes(wrong)
            assert path in places(verify_public(folder))
        (folder / path).write_bytes(right)
    assert verify_public(folder).findings == []
    (folder / "checkpoint").unlink()
    with pytest.raises(NotFoundError, match="there is no log"):
        verify_public(folder)


def test_a_log_that_is_signed_by_another_key_is_noticed(lived: Lived, folder: Path) -> None:
    other = NoteKey(ORIGIN, NoteKind.NOTE, person("stranger").public)
    assert {"checkpoint", "log"} <= places(verify_public(folder, other))
    write_folder([draft.entry for draft in lived.drafts], person("stranger"), folder)
    assert places(verify_public(folder)) == {"checkpoint"}


def test_cosignatures_count_if_they_are_right(lived: Lived, folder: Path) -> None:
    witness = NoteKey("witness.example", NoteKind.COSIGNATURE, person("witness").public)
    for text, findings in ((lived.note.text, set()), (f"{ORIGIN}\n1\n{lived.note.text[-45:]}", {"checkpoint"})):
        line = cosign_text(text, witness.name, person("witness"), 1)
        (folder / "checkpoint").write_bytes(Note(lived.note.text, (*lived.note.signatures, line)).pack())
        report = verify_public(folder, witnesses=[witness])
        assert (places(report), report.checked["cosignatures"]) == (findings, 0 if findings else 1)


def test_an_export_grows_with_the_log_and_full_tiles_stand_for_partial_ones(
    lived: Lived, empty: Database, tmp_path: Path
) -> None:
    """Of a log of 600 entries in three exports, the first of which comes back as an old checkpoint."""
    world = lived.town.world
    last_ms = parse_entry(lived.drafts[-1].entry).time_ms
    grants = (world.grant(person(str(number)), 1_000).signed for number in range(600))
    drafts = [*lived.drafts, *(Draft(pack_entry(last_ms, grant)) for grant in grants)]
    sizes = []
    for stop in (100, 300, len(drafts)):
        dictate(empty, drafts[sizes[-1] if sizes else 0 : stop])
        sizes.append(stop)
        log = LogReader(empty)
        note = Checkpoint(ORIGIN, stop, log.root(stop)).signed(world.keys.log)
        export_tiles(log, note, tmp_path / "log")
        assert verify_public(tmp_path / "log").findings == []
        if stop == 100:
            shutil.copy(tmp_path / "log" / "checkpoint", tmp_path / "first")
    shutil.copy(tmp_path / "first", tmp_path / "log" / "checkpoint")
    for partial in (BUNDLE.replace("28", "100"), TILE.replace("28", "100")):
        (tmp_path / "log" / partial).unlink()
    report = verify_public(tmp_path / "log")
    assert (report.findings, report.size) == ([], 100)


def test_an_export_over_another_log_is_refused(lived: Lived, spoiled: Database, folder: Path) -> None:
    entries = [flip(draft.entry, 5) for draft in lived.drafts]
    write_folder(entries, lived.town.world.keys.log, folder)
    with pytest.raises(ForkError, match="another log"):
        export_tiles(LogReader(spoiled), lived.note, folder)
