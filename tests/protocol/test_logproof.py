"""A file that proves one entry of a log offline, and nothing when a byte of it is changed."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.errors import MalformedError, ProtocolError
from nectar_protocol.identity import Identity
from nectar_protocol.logproof import MAX_BYTES, MAX_EXTRA, LogProof
from nectar_protocol.merkle import leaf_hash, tree_root
from nectar_protocol.note import Kind, Note, NoteKey, cosign_text
from nectar_protocol.proofs import MAX_HASHES, leaves_reader, prove_inclusion

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "log_proof.json").read_text())

LOG, WITNESS = Identity.from_seed(bytes(32)), Identity.from_seed(b"\1" * 32)
LOG_KEY, WITNESS_KEY = NoteKey("log", Kind.NOTE, LOG.public), NoteKey("w", Kind.COSIGNATURE, WITNESS.public)
ENTRIES = [bytes([number]) * 9 for number in range(100)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def proof_of(index: int, size: int, extra: bytes = b"") -> LogProof:
    checkpoint = Checkpoint("log", size, tree_root(LEAVES[:size]))
    note = checkpoint.signed(LOG, [cosign_text(checkpoint.text, "w", WITNESS, 5)])
    return LogProof(index, tuple(prove_inclusion(leaves_reader(LEAVES), index, size)), note, extra)


positions = st.integers(1, len(LEAVES)).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_a_vector_is_read_and_verifies(case: dict[str, Any]) -> None:
    proof = LogProof.unpack(bytes.fromhex(case["packed"]))
    assert proof.pack().hex() == case["packed"]
    assert (str(proof.index), proof.extra.hex()) == (case["index"], case["extra"])
    assert [node.hex() for node in proof.hashes] == case["proof"]
    keys = [NoteKey.parse(vkey) for vkey in case["vkeys"]]
    proof.verify(bytes.fromhex(case["entry"]), NoteKey.parse(case["log"]), keys)


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_file_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        LogProof.unpack(bytes.fromhex(case["packed"]))


@pytest.mark.parametrize("case", VECTORS["invalid_proofs"], ids=lambda case: case["name"])
def test_a_file_that_does_not_prove_its_entry_is_refused(case: dict[str, Any]) -> None:
    proof, keys = LogProof.unpack(bytes.fromhex(case["packed"])), [NoteKey.parse(vkey) for vkey in case["vkeys"]]
    with pytest.raises(getattr(errors, case["error"])):
        proof.verify(bytes.fromhex(case["entry"]), NoteKey.parse(case["log"]), keys)


@given(positions, st.binary(max_size=20))
def test_a_proof_is_read_as_it_was_written_and_verifies(position: tuple[int, int], extra: bytes) -> None:
    index, size = position
    proof = proof_of(index, size, extra)
    assert LogProof.unpack(proof.pack()) == proof
    witnessed = proof.verify(ENTRIES[index], LOG_KEY, [WITNESS_KEY])
    assert (witnessed.checkpoint.size, witnessed.witnesses) == (size, {WITNESS_KEY: 5})


@given(positions, st.data())
def test_one_byte_changed_never_moves_an_entry(position: tuple[int, int], data: st.DataObject) -> None:
    """What may change is who is known to have seen it: a spoilt name or ID makes a line a stranger's."""
    index, size = position
    packed = bytearray(proof_of(index, size).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        proof = LogProof.unpack(bytes(packed))
        assert proof.verify(ENTRIES[index], LOG_KEY, [WITNESS_KEY]).checkpoint.size == size
        assert proof.index == index


@given(positions, st.binary(max_size=20))
def test_another_entry_is_not_proved(position: tuple[int, int], entry: bytes) -> None:
    index, size = position
    if entry != ENTRIES[index]:
        with pytest.raises(ProtocolError):
            proof_of(index, size).verify(entry, LOG_KEY)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_proof_or_a_malformed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert LogProof.unpack(data).pack() == data


def test_the_largest_proof_is_read_and_a_larger_one_refused() -> None:
    note = proof_of(0, 1).checkpoint
    lines = note.signatures * (64 // len(note.signatures))
    largest = LogProof(2**63 - 1, tuple(LEAVES[:MAX_HASHES]), Note(note.text, lines), bytes(MAX_EXTRA))
    assert LogProof.unpack(largest.pack()) == largest
    for change in ({"hashes": tuple(LEAVES[: MAX_HASHES + 1])}, {"extra": bytes(MAX_EXTRA + 1)}, {"index": 2**63}):
        with pytest.raises(MalformedError):
            replace(largest, **change)
    with pytest.raises(MalformedError, match=f"at most {MAX_BYTES}"):
        LogProof.unpack(bytes(MAX_BYTES + 1))
