"""A checkpoint that the log does not lead to is found, wherever it is kept and whoever has signed it."""

from nectar_ledger.audit.verify import verify
from nectar_ledger.store.database import Database
from nectar_ledger.store.schema import checkpoints, cosignatures
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import Hash
from nectar_protocol.note import Kind, Note, NoteKey, cosign_text

from tests.ledger.audit_ground import Lived
from tests.ledger.world import ORIGIN, person

WITNESS = person("a witness")
WITNESS_KEY = NoteKey("witness.example", Kind.COSIGNATURE, WITNESS.public)
ROOT = Hash(bytes(32))


def put_line(database: Database, size: int, name: str, line: str) -> None:
    with database.writing.begin() as connection:
        database.put(connection, cosignatures, [(size, name, line)])


def put(database: Database, size: int, note: bytes) -> None:
    with database.writing.begin() as connection:
        database.put(connection, checkpoints, [(size, note, 0)])


def found(database: Database, published: Note | None = None) -> list[str]:
    return [str(finding) for finding in verify(database, published, [WITNESS_KEY]).findings]


def signed(lived: Lived, size: int, root: Hash = ROOT, key: Identity | None = None, origin: str = ORIGIN) -> Note:
    return Checkpoint(origin, size, root).signed(key or lived.town.world.keys.log)


def test_a_signed_fork_is_found(lived: Lived, spoiled: Database) -> None:
    """In the middle of the log, by the log's own key."""
    put(spoiled, 7, signed(lived, 7).pack())
    (finding,) = found(spoiled)
    assert finding.startswith("checkpoints 7")
    assert "a fork" in finding


def test_a_published_checkpoint_that_the_log_lacks_is_found(lived: Lived, spoiled: Database) -> None:
    newer = signed(lived, len(lived.drafts) + 5)
    (finding,) = found(spoiled, newer)
    assert finding.startswith("published")
    assert "some are lost" in finding
    (finding,) = found(spoiled, signed(lived, 3))
    assert "a fork" in finding
    assert found(spoiled, lived.note) == []


def test_a_checkpoint_of_another_log_is_found(lived: Lived, spoiled: Database) -> None:
    size, root = len(lived.drafts), Checkpoint.parse(lived.note.text).root
    for note in (
        signed(lived, size, root, key=person("stranger")),
        signed(lived, size, root, origin="ledger.example/other"),
    ):
        put(spoiled, size, note.pack())
        (finding,) = found(spoiled)
        assert "has no signature of a known key" in finding


def test_a_checkpoint_in_anothers_place_or_that_is_none_is_found(lived: Lived, spoiled: Database) -> None:
    put(spoiled, 5, lived.note.pack())
    (finding,) = found(spoiled)
    assert "over 28" in finding
    put(spoiled, 5, b"no note")
    assert len(found(spoiled)) == 1


def test_cosignatures_of_known_witnesses_are_verified(lived: Lived, spoiled: Database) -> None:
    size = len(lived.drafts)
    right = str(cosign_text(lived.note.text, WITNESS_KEY.name, WITNESS, 1_800_000_000)).rstrip("\n")
    over_another = str(cosign_text(signed(lived, 3).text, WITNESS_KEY.name, WITNESS, 1_800_000_000)).rstrip("\n")
    put_line(spoiled, size, WITNESS_KEY.name, right)
    put_line(spoiled, size, "unknown.example", over_another.replace(WITNESS_KEY.name, "unknown.example"))
    report = verify(spoiled, witnesses=[WITNESS_KEY])
    assert (report.findings, report.checked["cosignatures"]) == ([], 2)
    for wrong in (over_another, right.replace("witness.example", "other.example"), "no line"):
        put_line(spoiled, size, WITNESS_KEY.name, wrong)
        (finding,) = found(spoiled)
        assert finding.startswith(f"cosignatures {size}/{WITNESS_KEY.name}")
