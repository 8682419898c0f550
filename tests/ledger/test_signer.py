"""The log never signs two trees that do not continue each other, whatever is restored."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from nectar_ledger.errors import ForkError, StoreError
from nectar_ledger.log.published import Published
from nectar_ledger.log.signer import Signer
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import log_entries, log_head, log_tiles
from nectar_ledger.store.sequencer import Sequencer
from nectar_protocol.checkpoint import open_checkpoint
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import EMPTY_ROOT, Frontier
from nectar_protocol.note import Kind, Note, NoteKey

from tests.ledger.engines import Place
from tests.ledger.ingest import IDENTITY, ORIGIN, open_signer
from tests.ledger.till import TABLES, Command, Till, Total

KEY = NoteKey(ORIGIN, Kind.NOTE, IDENTITY.public)


def record(database: Database, *commands: Command) -> None:
    sequencer = Sequencer(database, TABLES, Till)
    sequencer.submit(commands).result(30)
    sequencer.close()


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "published"


def size_of(note: Note) -> int:
    return open_checkpoint(note, KEY).checkpoint.size


def test_checkpoints_grow_with_the_log(database: Database, tmp_path: Path, published: Path) -> None:
    signer = open_signer(database, tmp_path)
    assert signer.last is None
    assert open_checkpoint(signer.sign(), KEY).checkpoint.root == EMPTY_ROOT
    record(database, Total(1, 1, 1), Total(1, 2, 2))
    note = signer.sign()
    assert size_of(note) == 2
    assert Note.unpack(published.read_bytes()) == note == signer.last
    record(database, Total(1, 3, 3))
    assert size_of(signer.sign()) == 3


def test_the_same_log_has_the_same_checkpoint(database: Database, tmp_path: Path) -> None:
    record(database, Total(1, 1, 1))
    note = open_signer(database, tmp_path).sign()
    signer = open_signer(database, tmp_path)
    assert signer.last == note
    assert signer.sign() == note


def test_a_restored_older_database_refuses_to_sign(place: Place, database: Database, tmp_path: Path) -> None:
    record(database, Total(1, 1, 1))
    open_signer(database, tmp_path).sign()
    backup = place.back_up()
    record(database, Total(1, 2, 2))
    open_signer(database, tmp_path).sign()
    restored = place.open(backup)
    with pytest.raises(ForkError, match="has 1 entries, and a checkpoint over 2 is published"):
        open_signer(restored, tmp_path)


def test_a_restored_database_that_grew_differently_refuses_to_sign(
    place: Place, database: Database, tmp_path: Path
) -> None:
    record(database, Total(1, 1, 1))
    open_signer(database, tmp_path).sign()
    restored = place.open(place.back_up())
    record(database, Total(1, 2, 2))
    open_signer(database, tmp_path).sign()
    record(restored, Total(1, 2, 3), Total(1, 3, 4))
    with pytest.raises(ForkError, match="first 2 entries are not those"):
        open_signer(restored, tmp_path)


def test_a_restored_database_that_has_all_that_was_published_goes_on(
    place: Place, database: Database, tmp_path: Path
) -> None:
    record(database, Total(1, 1, 1))
    open_signer(database, tmp_path).sign()
    restored = place.open(place.back_up())
    record(restored, Total(1, 2, 2))
    assert size_of(open_signer(restored, tmp_path).sign()) == 2


def test_a_log_that_shrinks_under_a_running_signer_is_not_signed(database: Database, tmp_path: Path) -> None:
    record(database, Total(1, 1, 1))
    signer = open_signer(database, tmp_path)
    signer.sign()
    with database.writing.begin() as connection:
        for table in (log_entries, log_tiles):
            connection.execute(sa.delete(table))
        connection.execute(sa.update(log_head).values(size=0, frontier=Frontier().pack()))
    with pytest.raises(ForkError, match="has 0 entries"):
        signer.sign()


def test_without_the_file_nothing_is_signed(database: Database, tmp_path: Path, published: Path) -> None:
    record(database, Total(1, 1, 1))
    open_signer(database, tmp_path).sign()
    published.unlink()
    with pytest.raises(ForkError, match="put it back"):
        open_signer(database, tmp_path)


def test_an_older_file_does_not_hide_what_the_database_knows(
    database: Database, tmp_path: Path, published: Path
) -> None:
    record(database, Total(1, 1, 1))
    open_signer(database, tmp_path).sign()
    older = published.read_bytes()
    record(database, Total(1, 2, 2))
    note = open_signer(database, tmp_path).sign()
    published.write_bytes(older)
    assert open_signer(database, tmp_path).last == note


@pytest.mark.parametrize("content", [b"", b"not a note", bytes([255])])
def test_a_file_that_cannot_be_read_stops_signing(
    database: Database, tmp_path: Path, published: Path, content: bytes
) -> None:
    published.write_bytes(content)
    with pytest.raises(ForkError, match="cannot be read"):
        open_signer(database, tmp_path)


def test_a_file_of_another_log_stops_signing(database: Database, tmp_path: Path, published: Path) -> None:
    open_signer(database, tmp_path).sign()
    with pytest.raises(ForkError, match="not one of this log"):
        Signer(database, ORIGIN, Identity.generate(), Published(published), lambda: 0)


def test_what_cannot_be_kept_is_not_published(database: Database, tmp_path: Path) -> None:
    signer = Signer(database, ORIGIN, IDENTITY, Published(tmp_path / "gone" / "published"), lambda: 0)
    with pytest.raises(StoreError, match="nothing is published"):
        signer.sign()
    assert signer.last is None
