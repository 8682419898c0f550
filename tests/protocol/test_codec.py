"""Integers and byte strings: what is written is read again, and nothing is read past the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError


@given(st.integers(1, 8).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, 256**size - 1))))
def test_an_integer_that_fits_is_read_as_it_was_written(case: tuple[int, int]) -> None:
    size, value = case
    reader = Reader(uint(value, size, "value"))
    assert reader.uint(size) == value
    reader.end()


@pytest.mark.parametrize(("value", "size"), [(-1, 1), (256, 1), (1 << 16, 2), (1 << 32, 4), (1 << 64, 8)])
def test_an_integer_that_does_not_fit_is_refused_by_name(value: int, size: int) -> None:
    with pytest.raises(MalformedError, match="units"):
        uint(value, size, "units")


def test_integers_are_big_endian() -> None:
    assert uint(0x0102, 4, "value") == bytes([0, 0, 1, 2])


@given(st.binary(max_size=64), st.integers(0, 80))
def test_a_read_gives_all_bytes_asked_for_or_raises(data: bytes, count: int) -> None:
    reader = Reader(data)
    if count <= len(data):
        assert reader.take(count) == data[:count]
        assert reader.take(len(data) - count) == data[count:]
        reader.end()
    else:
        with pytest.raises(MalformedError):
            reader.take(count)
        assert reader.offset == 0


def test_a_refused_read_consumes_nothing() -> None:
    reader = Reader(b"ab")
    with pytest.raises(MalformedError, match="1 bytes are missing"):
        reader.take(3)
    assert reader.take(2) == b"ab"


def test_unread_bytes_are_refused_at_the_end() -> None:
    with pytest.raises(MalformedError, match="1 bytes too many"):
        Reader(b"a").end()


@given(st.text())
def test_utf8_text_is_read_as_it_was_written(text: str) -> None:
    data = text.encode()
    assert Reader(data).text(len(data)) == text


@pytest.mark.parametrize("data", [b"\xff", b"\xc1\xa3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_bytes_that_are_not_shortest_form_utf8_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="UTF-8"):
        Reader(data).text(len(data))
