"""A checkpoint binds a log's name, size and root under the log's key; witnesses are told apart from it."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.errors import MalformedError, ProtocolError, SignatureError
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import Hash, leaf_hash
from nectar_protocol.note import Kind, Note, NoteKey, cosign_text

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "checkpoint.json").read_text())

LOG, WITNESS = Identity.from_seed(bytes(32)), Identity.from_seed(b"\1" * 32)
ORIGIN = "ledger.example/log"
LOG_KEY, WITNESS_KEY = NoteKey(ORIGIN, Kind.NOTE, LOG.public), NoteKey("w", Kind.COSIGNATURE, WITNESS.public)
PLAIN = Checkpoint(ORIGIN, 7, leaf_hash(b"root"))

lines = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
roots = st.binary(min_size=32, max_size=32).map(Hash)
checkpoints = st.builds(Checkpoint, lines, st.integers(1, 2**63 - 1), roots, st.lists(lines, max_size=3).map(tuple))


def keys(case: dict[str, Any]) -> list[NoteKey]:
    return [NoteKey.parse(vkey) for vkey in case["vkeys"]]


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_a_vector_is_verified_and_read(case: dict[str, Any]) -> None:
    opened = open_checkpoint(Note.unpack(bytes.fromhex(case["packed"])), NoteKey.parse(case["log"]), keys(case))
    root = Hash(bytes.fromhex(case["root"]))
    assert opened.checkpoint == Checkpoint(case["origin"], int(case["size"]), root, tuple(case["extensions"]))
    assert {str(key): str(time_s) for key, time_s in opened.witnesses.items()} == {
        witness["vkey"]: witness["time_s"] for witness in case["witnesses"]
    }


@pytest.mark.parametrize("case", VECTORS["invalid_texts"], ids=lambda case: case["name"])
def test_an_invalid_text_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Checkpoint.parse(case["text"])


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_checkpoint_is_refused(case: dict[str, Any]) -> None:
    note = Note.unpack(bytes.fromhex(case["packed"]))
    with pytest.raises(getattr(errors, case["error"])):
        open_checkpoint(note, NoteKey.parse(case["log"]), keys(case))


@given(checkpoints)
def test_parse_undoes_text(checkpoint: Checkpoint) -> None:
    assert Checkpoint.parse(checkpoint.text) == checkpoint


@given(st.text(max_size=100) | checkpoints.map(lambda checkpoint: checkpoint.text + "\n"))
def test_any_text_is_a_checkpoint_or_a_malformed_error(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert Checkpoint.parse(text).text == text


@given(st.data())
def test_one_byte_changed_is_never_another_checkpoint(data: st.DataObject) -> None:
    packed = bytearray(PLAIN.signed(LOG, [cosign_text(PLAIN.text, "w", WITNESS, 5)]).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):  # a spoilt name or ID makes a line a stranger's
        assert open_checkpoint(Note.unpack(bytes(packed)), LOG_KEY, [WITNESS_KEY]).checkpoint == PLAIN


def test_witnesses_are_those_asked_for_that_signed() -> None:
    note = PLAIN.signed(LOG, [cosign_text(PLAIN.text, "w", WITNESS, 5)])
    assert open_checkpoint(note, LOG_KEY).witnesses == {}
    assert open_checkpoint(note, LOG_KEY, [WITNESS_KEY]).witnesses == {WITNESS_KEY: 5}
    assert open_checkpoint(PLAIN.signed(LOG), LOG_KEY, [WITNESS_KEY]).witnesses == {}


def test_a_witness_that_signs_twice_is_one_witness_at_the_first_time() -> None:
    note = PLAIN.signed(LOG, [cosign_text(PLAIN.text, "w", WITNESS, time_s) for time_s in (5, 9)])
    assert open_checkpoint(note, LOG_KEY, [WITNESS_KEY]).witnesses == {WITNESS_KEY: 5}


def test_a_witness_does_not_stand_in_for_the_log() -> None:
    note = Note(PLAIN.text, (cosign_text(PLAIN.text, "w", WITNESS, 5),))
    with pytest.raises(SignatureError, match="not signed by its log"):
        open_checkpoint(note, LOG_KEY, [WITNESS_KEY])


def test_an_origin_that_names_no_key_is_read_and_not_signed() -> None:
    spaced = replace(PLAIN, origin="a log")
    assert Checkpoint.parse(spaced.text) == spaced
    with pytest.raises(MalformedError, match="has a space"):
        spaced.signed(LOG)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": ""}, {"origin": "a\nb"}, {"origin": "a" * 256}, {"size": -1}, {"size": 2**63}, {"size": 0},
        {"root": b""}, {"extensions": ("",)}, {"extensions": ("a\nb",)}, {"extensions": ("a",) * 17},
    ],
    ids=str,
)  # fmt: skip
def test_what_no_checkpoint_says_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        replace(PLAIN, **change)
