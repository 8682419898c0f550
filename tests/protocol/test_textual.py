"""Numbers and bytes have one spelling in text."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.errors import MalformedError
from nectar_protocol.textual import MAX_DECIMAL, parse_base64, parse_decimal, to_base64


@given(st.integers(0, MAX_DECIMAL))
def test_a_number_is_read_as_it_was_written(number: int) -> None:
    assert parse_decimal(str(number), "number") == number


@given(st.text(max_size=25) | st.from_regex("[-+ 0]{0,2}[0-9_]{1,20}", fullmatch=True))
def test_any_text_is_a_number_written_as_such_or_a_malformed_error(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert str(parse_decimal(text, "number")) == text


@pytest.mark.parametrize(
    "text", ["", "00", "01", "+1", "-1", "1 ", "1_0", "0x1", "\u0663", "1\n", str(MAX_DECIMAL + 1)]
)
def test_another_spelling_of_a_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(MalformedError, match="the size"):
        parse_decimal(text, "the size")


@given(st.binary(max_size=100))
def test_bytes_are_read_as_they_were_written(data: bytes) -> None:
    assert parse_base64(to_base64(data), "data") == data


@given(st.text(max_size=20) | st.text("AQgwB+/=", max_size=12))
def test_any_text_is_base64_in_its_one_spelling_or_a_malformed_error(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert to_base64(parse_base64(text, "data")) == text


@pytest.mark.parametrize("text", ["YQ", "YQ=", "YR==", "YQ==\n", " YQ==", "YQ==YQ==", "-_-_", "YQ\u0663="])
def test_another_spelling_of_bytes_is_refused_by_name(text: str) -> None:
    with pytest.raises(MalformedError, match="the root"):
        parse_base64(text, "the root")
