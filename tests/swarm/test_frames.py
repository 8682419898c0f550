"""Frames give back the messages that were sent, however the stream cuts them, and refuse what breaks a bound."""

import contextlib
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_swarm import frames
from nectar_swarm.errors import WireError
from nectar_swarm.frames import HEADER, MAX_FRAME, MAX_MESSAGE, MORE, Decoder, Kind, Message, encode

sessions = st.integers(0, (1 << 64) - 1)
messages = st.tuples(sessions, st.sampled_from(Kind), st.binary(max_size=200))


def stream(sent: list[Message]) -> bytes:
    return b"".join(frame for message in sent for frame in encode(*message))


def decode(data: bytes, cuts: list[int] | None = None) -> list[Message]:
    """What a decoder makes of `data` when it comes cut at these places."""
    decoder = Decoder()
    places = sorted({min(cut, len(data)) for cut in cuts or []} | {0, len(data)})
    received: list[Message] = []
    for start, stop in pairwise(places):
        received += decoder.feed(data[start:stop])
    return received


def frame(length: int, session: int = 1, kind: int = Kind.STEP, flags: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(length, session, kind, flags) + payload


def piece(size: int, session: int = 1, kind: int = Kind.STEP, flags: int = MORE) -> bytes:
    return frame(size, session, kind, flags, bytes(size))


# Round trips


@given(st.lists(messages, max_size=20), st.lists(st.integers(0, 4000), max_size=20))
def test_any_messages_come_back_however_the_stream_is_cut(sent: list[Message], cuts: list[int]) -> None:
    assert decode(stream(sent), cuts) == sent


@given(st.lists(messages, max_size=4))
def test_messages_come_back_when_every_byte_comes_alone(sent: list[Message]) -> None:
    data = stream(sent)
    assert decode(data, list(range(len(data)))) == sent


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 2 * MAX_FRAME, 3 * MAX_FRAME + 17])
def test_a_long_message_travels_in_pieces_of_at_most_a_frame(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    pieces = list(encode(7, Kind.STEP, payload[:size]))
    assert [len(p) - HEADER.size for p in pieces[:-1]] == [MAX_FRAME] * (len(pieces) - 1)
    assert [HEADER.unpack_from(p)[3] for p in pieces] == [MORE] * (len(pieces) - 1) + [0]
    assert decode(b"".join(pieces)) == [(7, Kind.STEP, payload[:size])]


def test_a_message_of_exactly_a_frame_is_one_frame() -> None:
    assert len(list(encode(7, Kind.STEP, bytes(MAX_FRAME)))) == 1


@given(st.data())
def test_pieces_of_several_messages_may_come_between_each_other(data: st.DataObject) -> None:
    sent = [(number, Kind.STEP, bytes([number]) * size) for number, size in enumerate((40, 41, 83))]
    waiting = [
        [
            frame(len(p := payload[at : at + 8]), session, kind, MORE if at + 8 < len(payload) else 0, p)
            for at in range(0, len(payload), 8)
        ]
        for session, kind, payload in sent
    ]
    mixed = b""
    while any(waiting):
        mixed += data.draw(st.sampled_from([queue for queue in waiting if queue])).pop(0)
    assert sorted(decode(mixed)) == sent


def test_a_short_message_of_another_kind_passes_between_the_pieces_of_a_session() -> None:
    data = piece(8) + frame(0, kind=Kind.CLOSE) + piece(4, flags=0)
    assert decode(data) == [(1, Kind.CLOSE, b""), (1, Kind.STEP, bytes(12))]


# Bounds


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode(1, Kind.STEP, bytes(MAX_MESSAGE + 1))


def test_an_oversize_frame_is_refused_from_its_header_alone() -> None:
    with pytest.raises(WireError, match="a frame of"):
        decode(frame(MAX_FRAME + 1))


@pytest.mark.parametrize("kind", [0, len(Kind) + 1, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(WireError, match="kind"):
        decode(frame(0, kind=kind))


@pytest.mark.parametrize("flags", [2, 3, 0x80, 0xFF])
def test_unknown_flags_are_refused(flags: int) -> None:
    with pytest.raises(WireError, match="flags"):
        decode(frame(0, flags=flags))


def test_an_empty_piece_is_refused() -> None:
    with pytest.raises(WireError, match="empty piece"):
        decode(frame(0, flags=MORE))


def test_too_many_unfinished_messages_are_refused() -> None:
    decoder = Decoder()
    for session in range(frames.MAX_PARTIAL_MESSAGES):
        assert not list(decoder.feed(piece(1, session)))
    with pytest.raises(WireError, match="unfinished"):
        list(decoder.feed(piece(1, frames.MAX_PARTIAL_MESSAGES)))


def test_finished_messages_make_room_for_others() -> None:
    decoder = Decoder()
    for session in range(4 * frames.MAX_PARTIAL_MESSAGES):
        assert len(list(decoder.feed(piece(1, session) + piece(1, session, flags=0)))) == 1


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE", 1000)
    monkeypatch.setattr(frames, "MAX_PARTIAL_BYTES", 2000)


@pytest.mark.usefixtures("small_limits")
def test_a_message_that_grows_over_the_limit_is_refused_before_its_end() -> None:
    decoder = Decoder()
    assert not list(decoder.feed(piece(1000)))
    with pytest.raises(WireError, match="a message of"):
        list(decoder.feed(piece(1)))


@pytest.mark.usefixtures("small_limits")
def test_too_many_unfinished_bytes_are_refused() -> None:
    decoder = Decoder()
    for session in range(2):
        assert not list(decoder.feed(piece(1000, session)))
    with pytest.raises(WireError, match="unfinished"):
        list(decoder.feed(piece(1, 2)))


def test_small_pieces_cost_no_more_memory_than_their_bytes() -> None:
    decoder, data = Decoder(), piece(2) * 10_000
    tracemalloc.start()
    try:
        for _ in range(10):
            assert not list(decoder.feed(data))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * 200_000


# Strangers


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_random_bytes_raise_nothing_but_a_wire_error(chunks: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for chunk in chunks:
            for session, kind, payload in decoder.feed(chunk):
                assert (type(session), type(kind), type(payload)) == (int, Kind, bytes)
    except WireError:
        pass


@given(st.lists(messages, min_size=1, max_size=6), st.data())
def test_a_damaged_stream_raises_nothing_but_a_wire_error(sent: list[Message], data: st.DataObject) -> None:
    damaged = bytearray(stream(sent))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        decode(bytes(damaged))
