"""The proof of an entry, offline: what it proves in words, and that nothing in it can be changed."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_ledger_client.errors import FileError, UntrustedError
from nectar_ledger_client.verifier import Check, verify_proof, verify_proof_file, write_proof_file
from nectar_ledger_client.words import describe, when
from nectar_protocol.commands import Verdict
from nectar_protocol.entries import BatchClosed, HoldClosed, Settled
from nectar_protocol.entry import Entry, Kind, pack_entry, parse_entry
from nectar_protocol.errors import MalformedError
from nectar_protocol.logproof import LogProof

from tests.ledger.world import ORIGIN, Book, World, person
from tests.ledger_client.history import ALICE, CAP, GUEST, LIFE_MS, NODE, OWNER, SESSION, find, write_history
from tests.ledger_client.paper import LOG, PaperLog, witness_key

HOLDS = person("holds").public


@pytest.fixture(scope="module")
def book() -> Book:
    return write_history()


@pytest.fixture(scope="module")
def log(book: Book) -> PaperLog:
    return PaperLog().publish([draft.entry for draft in book.log], "ada", "bob")


def proof_of(log: PaperLog, entry: bytes) -> LogProof:
    """The proof of an entry that a log with the same key has put into a tree."""
    forged = PaperLog(log.entries[:5], log.identity).publish([entry], *log.witnesses)
    return forged.proof(5)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_entry_is_proved_and_described(book: Book, log: PaperLog, kind: Kind) -> None:
    index = find(book, kind)
    proved = verify_proof(log.proof(index), LOG, holds=HOLDS)
    assert (proved.index, proved.entry.kind) == (index, kind)
    assert proved.words == describe(proved.entry)
    assert [check.name for check in proved.checks[:4]] == ["entry", "checkpoint", "inclusion", "witnesses"]
    assert all(check.passed for check in proved.checks if check.name != "witnesses")


def test_a_receipts_proof_says_who_had_done_what_for_how_much(book: Book, log: PaperLog) -> None:
    entry = parse_entry(log.entries[find(book, Kind.SETTLE)]).body
    assert isinstance(entry, Settled)
    words = verify_proof(log.proof(find(book, Kind.SETTLE)), LOG).words
    for part in (NODE.peer_id, GUEST.public.hex(), entry.receipt.receipt.hold.hex(), "1920 units", "2027-01-15"):
        assert part in words


def test_the_file_that_was_written_is_verified_and_each_step_is_reported(log: PaperLog, tmp_path: Path) -> None:
    path, seen = tmp_path / "proof", list[Check]()
    write_proof_file(path, log.proof(3))
    proved = verify_proof_file(path, str(LOG), [str(witness_key("ada"))], 1, report=seen.append)
    assert tuple(seen) == proved.checks
    assert proved.witnesses == ("ada",)


@given(st.data())
def test_no_byte_of_a_proof_can_be_changed_and_prove_something_else(log: PaperLog, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, log.size - 1))
    packed = bytearray(log.proof(index).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        proof = LogProof.unpack(bytes(packed))
    except MalformedError:
        return
    try:
        proved = verify_proof(proof, LOG, [witness_key("ada"), witness_key("bob")], 2, HOLDS)
    except UntrustedError:
        return
    # Only what stands in lines that nobody has asked about.
    assert (proved.index, proved.entry) == (index, parse_entry(log.entries[index]))


def test_the_proof_of_another_key_proves_nothing(log: PaperLog) -> None:
    key = replace(LOG, public=person("somebody").public)
    with pytest.raises(UntrustedError, match="no signature of a known key"):
        verify_proof(log.proof(3), key)


def test_too_few_witnesses_prove_nothing(log: PaperLog) -> None:
    witnesses = [witness_key(name) for name in ("ada", "eve")]
    assert verify_proof(log.proof(3), LOG, witnesses, 1).witnesses == ("ada",)
    with pytest.raises(UntrustedError, match="1 of the witnesses"):
        verify_proof(log.proof(3), LOG, witnesses, 2)


def test_without_witnesses_it_says_what_was_not_checked(log: PaperLog) -> None:
    unchecked = [check.name for check in verify_proof(log.proof(3), LOG).checks if not check.passed]
    assert unchecked == ["witnesses"]


def test_without_its_key_a_holds_signature_is_said_not_to_be_checked(book: Book, log: PaperLog) -> None:
    proved = verify_proof(log.proof(find(book, Kind.HOLD)), LOG)
    assert [check.name for check in proved.checks if not check.passed] == ["witnesses", "signatures"]


@pytest.mark.parametrize("kind", [Kind.SETTLE, Kind.HOLD, Kind.GRANT, Kind.BATCH_CLOSE])
def test_an_entry_that_nobody_but_the_log_has_signed_is_refused(book: Book, log: PaperLog, kind: Kind) -> None:
    entry = bytearray(log.entries[find(book, kind)])
    entry[-40] ^= 1
    with pytest.raises(UntrustedError):
        verify_proof(proof_of(log, bytes(entry)), LOG, holds=HOLDS)


def test_what_a_session_asked_to_be_closed_is_checked_too(log: PaperLog) -> None:
    world, other = World(), person("other")
    book = Book(world)
    book.do(world.publish_model(), world.bind(NODE, OWNER), world.bind(other, OWNER))
    book.do(world.grant(ALICE, 10**9), world.fund(ALICE, 10**8))
    hold = book.open(world.open_hold(ALICE, SESSION, {NODE: CAP, other: CAP}, book.now_ms + LIFE_MS))
    book.do(world.receipt(hold, NODE, SESSION, 1, 1, final=True), world.close(SESSION, hold))
    entry = book.log[-1].entry
    assert isinstance(parse_entry(entry).body, HoldClosed)
    assert "close-hold" in verify_proof(proof_of(log, entry), LOG).checks[-1].words
    with pytest.raises(UntrustedError):
        verify_proof(proof_of(log, entry[:-1] + bytes([entry[-1] ^ 1])), LOG)


def test_a_batchs_verdicts_are_checked_one_by_one(book: Book, log: PaperLog) -> None:
    body = parse_entry(log.entries[find(book, Kind.BATCH_CLOSE)]).body
    assert isinstance(body, BatchClosed)
    proved = verify_proof(log.proof(find(book, Kind.BATCH_CLOSE)), LOG)
    assert sum(Verdict.NAME in check.words for check in proved.checks) == len(body.verdicts) == 1


def test_the_first_entry_of_another_log_is_refused(book: Book, log: PaperLog) -> None:
    entry = parse_entry(log.entries[0])
    forged = pack_entry(entry.time_ms, replace(book.world.genesis, network="elsewhere"))
    with pytest.raises(UntrustedError, match="another log"):
        verify_proof(proof_of(log, forged), LOG)


def test_a_proof_without_its_entry_says_how_to_fetch_one(log: PaperLog) -> None:
    with pytest.raises(UntrustedError, match="nectar audit receipt"):
        verify_proof(replace(log.proof(3), extra=b""), LOG)


def test_a_file_that_cannot_be_read_or_is_none_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        verify_proof_file(tmp_path / "none", str(LOG))
    (tmp_path / "other").write_bytes(b"not a proof")
    with pytest.raises(UntrustedError, match="no proof"):
        verify_proof_file(tmp_path / "other", str(LOG))
    with pytest.raises(MalformedError, match=r"NAME\+ID\+KEY"):
        verify_proof_file(tmp_path / "other", ORIGIN)


@pytest.mark.parametrize("time_ms", [0, 2**53, 2**63, 2**64 - 1])
def test_any_time_can_be_said(time_ms: int) -> None:
    assert when(time_ms)


def test_a_description_says_when(book: Book) -> None:
    for draft in book.log:
        entry = parse_entry(draft.entry)
        assert describe(entry) != describe(Entry(entry.kind, entry.time_ms + 5_000, entry.body))
