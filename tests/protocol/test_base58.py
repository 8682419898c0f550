"""Base58 agrees with the vectors and with the library that hivemind uses, and each text stands for one byte string."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import base58, errors
from nectar_protocol.errors import MalformedError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "base58.json").read_text())

# What 128 characters can hold.
short_bytes = st.binary(max_size=93) | st.binary(max_size=60).map(lambda data: bytes(20) + data)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["data"][:16] or "empty")
def test_a_vector_encodes_and_decodes(case: dict[str, Any]) -> None:
    assert base58.encode(bytes.fromhex(case["data"])) == case["text"]
    assert base58.decode(case["text"]).hex() == case["data"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_vector_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        base58.decode(case["text"])


@given(short_bytes)
def test_decode_undoes_encode(data: bytes) -> None:
    assert base58.decode(base58.encode(data)) == data


@given(st.text(base58.ALPHABET, max_size=base58.MAX_TEXT))
def test_two_texts_never_decode_to_the_same_bytes(text: str) -> None:
    assert base58.encode(base58.decode(text)) == text


@given(st.text())
def test_any_text_decodes_or_raises_a_malformed_error(text: str) -> None:
    try:
        assert base58.encode(base58.decode(text)) == text
    except MalformedError:
        assert len(text) > base58.MAX_TEXT or not set(text) <= set(base58.ALPHABET)


@given(data=short_bytes)
def test_it_agrees_with_the_reference_library(data: bytes) -> None:
    reference = pytest.importorskip("base58")
    text = reference.b58encode(data).decode()
    assert base58.encode(data) == text
    assert base58.decode(text) == reference.b58decode(text)


@given(st.text(max_size=40))
def test_it_refuses_at_least_what_the_reference_library_refuses(text: str) -> None:
    reference = pytest.importorskip("base58")
    try:
        data = base58.decode(text)
    except MalformedError:
        return
    assert reference.b58decode(text) == data


def test_128_characters_are_read_and_129_are_not() -> None:
    assert base58.decode("1" * base58.MAX_TEXT) == bytes(base58.MAX_TEXT)
    with pytest.raises(MalformedError, match="129 characters"):
        base58.decode("z" * (base58.MAX_TEXT + 1))
