"""A note is trusted for the keys that signed it: strangers are passed over, a wrong line of a known key condemns it."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.errors import MalformedError, ProtocolError, SignatureError
from nectar_protocol.identity import Identity, public_key
from nectar_protocol.note import (
    MAX_BYTES,
    MAX_NAME,
    MAX_SIGNATURES,
    Kind,
    Note,
    NoteKey,
    NoteSignature,
    cosign_text,
    sign_text,
)
from nectar_protocol.textual import parse_base64

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "note.json").read_text())

IDENTITY = Identity.from_seed(bytes(32))
NAME = "log.example"
KEYS = {kind: NoteKey(NAME, kind, IDENTITY.public) for kind in Kind}

names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="+"), min_size=1, max_size=40)
texts = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20) | st.just("\n"), max_size=60).map(
    lambda text: text + "\n"
)
strangers = st.builds(NoteSignature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=100))
kinds = st.sampled_from(Kind)


def sign(kind: Kind, text: str) -> NoteSignature:
    return sign_text(text, NAME, IDENTITY) if kind is Kind.NOTE else cosign_text(text, NAME, IDENTITY, 1_767_225_600)


# Vectors


@pytest.mark.parametrize("case", VECTORS["keys"], ids=lambda case: case["vkey"])
def test_a_key_vector_has_its_id_and_is_read(case: dict[str, Any]) -> None:
    key = NoteKey(case["name"], Kind(case["kind"]), public_key(bytes.fromhex(case["public_key"])))
    assert (str(key), key.key_id.hex()) == (case["vkey"], case["key_id"])
    assert NoteKey.parse(case["vkey"]) == key


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_a_note_vector_is_read_and_verifies(case: dict[str, Any]) -> None:
    note = Note.unpack(bytes.fromhex(case["packed"]))
    assert note.text == case["text"]
    assert note.pack().hex() == case["packed"]
    signed = note.verify([NoteKey.parse(vkey) for vkey in case["vkeys"]])
    assert {str(key): "" if time_s is None else str(time_s) for key, time_s in signed.items()} == {
        line["vkey"]: line["time_s"] for line in case["signed"]
    }


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_note_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Note.unpack(bytes.fromhex(case["packed"]))


@pytest.mark.parametrize("case", VECTORS["invalid_signatures"], ids=lambda case: case["name"])
def test_a_note_that_its_keys_did_not_sign_is_refused(case: dict[str, Any]) -> None:
    note = Note.unpack(bytes.fromhex(case["packed"]))
    with pytest.raises(getattr(errors, case["error"])):
        note.verify([NoteKey.parse(vkey) for vkey in case["vkeys"]])


@pytest.mark.parametrize("case", VECTORS["invalid_vkeys"], ids=lambda case: case["name"])
def test_an_invalid_key_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        NoteKey.parse(case["vkey"])


def test_the_example_of_go_is_signed_again_byte_by_byte() -> None:
    """The signer's seed is published with the example, and Ed25519 has no randomness."""
    seed = parse_base64("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz", "the key")[1:]
    case = next(case for case in VECTORS["valid"] if "Go" in case["name"])
    line = sign_text(case["text"], "PeterNeumann", Identity.from_seed(seed))
    assert Note(case["text"], (line,)).pack().hex() == case["packed"]


# Properties


@given(kinds, texts, st.lists(strangers, max_size=3), st.lists(strangers, max_size=3))
def test_a_signed_note_is_read_and_verifies_among_strangers(
    kind: Kind, text: str, before: list[NoteSignature], after: list[NoteSignature]
) -> None:
    note = Note(text, (*before, sign(kind, text), *after))
    assert Note.unpack(note.pack()) == note
    assert list(note.verify(KEYS.values())) == [KEYS[kind]]


@given(kinds, texts, texts)
def test_a_signature_is_good_for_one_text(kind: Kind, text: str, other: str) -> None:
    if text != other:
        with pytest.raises(SignatureError):
            Note(other, (sign(kind, text),)).verify(KEYS.values())


@given(kinds, st.data())
def test_one_bit_changed_in_a_signature_condemns_the_note(kind: Kind, data: st.DataObject) -> None:
    good = sign(kind, "text\n")
    changed = bytearray(good.signature)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    bad = NoteSignature(good.name, good.key_id, bytes(changed))
    for lines in ((bad,), (good, bad), (bad, good)):
        with pytest.raises(SignatureError, match=r"log\.example"):
            Note("text\n", lines).verify(KEYS.values())


@given(kinds, st.data())
def test_one_byte_changed_in_a_note_never_gives_a_trusted_other_text(kind: Kind, data: st.DataObject) -> None:
    packed = bytearray(Note("a text\nof lines\n", (sign(kind, "a text\nof lines\n"),)).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        Note.unpack(bytes(packed)).verify(KEYS.values())


@given(st.binary(max_size=200) | texts.map(lambda text: f"{text}\n\u2014 a AAAAAAAA\n".encode()))
def test_any_bytes_are_a_note_or_a_malformed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert Note.unpack(data).pack() == data


@given(names, kinds)
def test_a_key_is_read_as_it_was_written(name: str, kind: Kind) -> None:
    key = NoteKey(name, kind, IDENTITY.public)
    assert NoteKey.parse(str(key)) == key


@given(st.data())
def test_one_character_changed_in_a_key_is_refused(data: st.DataObject) -> None:
    text = str(KEYS[Kind.NOTE])
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[place]))
    with pytest.raises(ProtocolError):
        NoteKey.parse(text[:place] + other + text[place + 1 :])


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_a_protocol_error(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        assert str(NoteKey.parse(text)) == text


# Bounds


def test_a_note_has_at_most_64_signatures_and_256_kib() -> None:
    line = sign(Kind.NOTE, "text\n")
    assert Note.unpack(Note("text\n", (line,) * MAX_SIGNATURES).pack()).signatures == (line,) * MAX_SIGNATURES
    for lines in ((), (line,) * (MAX_SIGNATURES + 1)):
        with pytest.raises(MalformedError, match="1 to 64 signatures"):
            Note("text\n", lines)
    with pytest.raises(MalformedError, match="at most 262144"):
        Note("a" * MAX_BYTES + "\n", (line,)).pack()
    with pytest.raises(MalformedError, match="at most 262144"):
        Note.unpack(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "a\u00a0b", "a\u2028b", "\x01", "é" * 128, "\ud800"])
def test_a_name_that_no_key_has_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="name"):
        NoteKey(name, Kind.NOTE, IDENTITY.public)


def test_a_name_has_at_most_255_bytes() -> None:
    assert NoteKey.parse(str(NoteKey("a" * MAX_NAME, Kind.NOTE, IDENTITY.public))).name == "a" * MAX_NAME


@pytest.mark.parametrize("text", ["", "no line feed", "a\tb\n", "\r\n", "\ud800\n"])
def test_a_text_that_no_note_has_is_not_signed(text: str) -> None:
    with pytest.raises(MalformedError, match="text"):
        sign_text(text, NAME, IDENTITY)
    with pytest.raises(MalformedError, match="text"):
        cosign_text(text, NAME, IDENTITY, 0)


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_a_time_that_no_cosignature_has_is_not_signed(time_s: int) -> None:
    with pytest.raises(MalformedError, match="time"):
        cosign_text("text\n", NAME, IDENTITY, time_s)
