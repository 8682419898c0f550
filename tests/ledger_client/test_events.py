"""Server-sent events: the same ones however the stream is cut, and an end to what is none."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_ledger_client.errors import AnswerError
from nectar_ledger_client.events import Event, EventParser, listen

names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=20)
happenings = st.lists(st.tuples(names, st.dictionaries(names, names | st.integers(), max_size=3)), max_size=6)


def stream_of(events: Iterable[Event], newline: str = "\n") -> bytes:
    texts = []
    for event in events:
        lines = (f"id: {event.index}", f"event: {event.kind}", f"data: {json.dumps(event.data)}", "")
        texts.append(newline.join(lines) + newline)
    return f": ping{newline}{newline}".join(texts).encode()


def parse(chunks: Iterable[bytes], last: int | None = None) -> list[Event]:
    parser = EventParser(last)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@given(happenings, st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
def test_events_are_the_same_however_the_stream_is_cut(
    told: list[tuple[str, dict[str, object]]], size: int, newline: str
) -> None:
    events = [Event(index, kind, data) for index, (kind, data) in enumerate(told)]
    stream = stream_of(events, newline)
    assert parse(stream[start : start + size] for start in range(0, len(stream), size)) == events


def test_an_event_that_comes_again_is_passed_over() -> None:
    events = [Event(index, "settle", {}) for index in (7, 8, 9)]
    assert parse([stream_of(events), stream_of(events)], last=7) == events[1:]


def test_what_was_begun_before_the_link_broke_is_forgotten() -> None:
    parser = EventParser()
    whole = stream_of([Event(3, "settle", {"a": "b"})])
    assert list(parser.feed(whole[:20])) == []
    parser.reconnected()
    assert list(parser.feed(whole)) == [Event(3, "settle", {"a": "b"})]


@pytest.mark.parametrize(
    "stream",
    [
        b"event: settle\ndata: {}\n\n",
        b"id: 1\ndata: {}\n\n",
        b"id: 1\nevent: settle\ndata: {\n\n",
        b"id: 1\nevent: settle\ndata: []\n\n",
        b"id: -1\nevent: settle\ndata: {}\n\n",
        b"id: 01\nevent: settle\ndata: {}\n\n",
        b"id: 1\nevent: \xff\ndata: {}\n\n",
        b"id: 1\nevent: " + b"a" * 100 + b"\ndata: {}\n\n",
        b"id: 1\nevent: settle\ndata: " + b"[" * 50_000 + b"\n\n",
        b"data: " + b"a" * 70_000,
        b"x: y\n" * 20_000,
    ],
)
def test_what_is_no_event_is_an_error(stream: bytes) -> None:
    with pytest.raises(AnswerError):
        parse([stream])


def test_lines_without_data_are_no_event() -> None:
    assert parse([b": awake\n\nid: 5\n\nretry: 10\n\n"]) == []


def test_who_comes_back_says_what_was_last() -> None:
    assert listen(None).headers == {"Accept": "text/event-stream"}
    assert listen(41).headers["Last-Event-ID"] == "41"
