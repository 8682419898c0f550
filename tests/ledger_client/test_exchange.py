"""Requests and what replies mean: the answer, or an error that says what to do; and when to ask again."""

import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_ledger_client import calls, logcalls
from nectar_ledger_client.errors import AnswerError, BusyError, LedgerClientError, RefusedError, UnreachableError
from nectar_ledger_client.exchange import BodyReader, Reply, base_url, build_request, error_of, judge
from nectar_ledger_client.page import Cursor
from nectar_ledger_client.retries import NO_RETRIES, Retries
from nectar_protocol.tiles import Tile

BASE = base_url("https://ledger.example/below/")
TILE = logcalls.tile(Tile(0, 0, 256))
RETRY_AFTER = [("7", 7.0), ("", 1.0), ("soon", 1.0), ("9" * 12, 1.0), ("²", 1.0)]


def reply(status: int, body: object = None, **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Reply(status, httpx.Headers(lines), data)


@pytest.mark.parametrize(
    "address",
    ["", "ledger.example", "ftp://ledger.example", "https://", "https://h:port", "https://h/?q", "https://u:p@h", "http://[::"],
)  # fmt: skip
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(LedgerClientError, match="address"):
        base_url(address)


def test_paths_and_queries_stand_below_the_ledgers_address() -> None:
    request = build_request(BASE, logcalls.consistency(3, 9), 0)
    assert str(request.url) == "https://ledger.example/below/log/consistency?old=3&new=9"
    assert request.headers["Accept-Encoding"] == "identity"


def test_a_refusal_has_the_ledgers_code_and_words() -> None:
    error = error_of(reply(409, {"error": "already-bound", "message": "the node has a payee", "more": 1}))
    assert isinstance(error, RefusedError)
    assert (error.code, error.message, error.status) == ("already-bound", "the node has a payee", 409)


def test_words_of_a_stranger_cannot_steer_a_terminal() -> None:
    error = error_of(reply(400, {"error": "malformed", "message": "a\x1b[2J\nb" + "c" * 10_000}))
    assert isinstance(error, RefusedError)
    assert error.message.startswith("a [2J b")
    assert len(error.message) == 500


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "retry_after_s"), RETRY_AFTER)
def test_a_busy_ledger_says_when_to_come_back(status: int, asked: str, retry_after_s: float) -> None:
    error = error_of(reply(status, {"error": "full", "message": "too much"}, Retry_After=asked))
    assert isinstance(error, BusyError)
    assert error.retry_after_s == retry_after_s


@pytest.mark.parametrize("status", [408, 500, 502, 504])
def test_a_failing_ledger_may_be_asked_again(status: int) -> None:
    assert isinstance(error_of(reply(status, b"<html>")), UnreachableError)


@pytest.mark.parametrize("status", [101, 201, 204, 301, 307, 404, 418])
def test_a_reply_without_a_ledgers_reason_is_not_a_ledgers(status: int) -> None:
    assert isinstance(error_of(reply(status, b"<html>")), AnswerError)


error_fields = st.dictionaries(st.sampled_from(["error", "message"]), st.text() | st.integers())
json_bodies = st.builds(lambda value: json.dumps(value).encode(), st.none() | st.lists(st.integers()) | error_fields)


@given(st.integers(100, 599), st.binary(max_size=300) | json_bodies)
def test_whatever_comes_is_an_answer_or_an_error_of_ours(status: int, body: bytes) -> None:
    for call in (calls.supply(), calls.nodes(Cursor()), logcalls.checkpoint(), logcalls.consistency(1, 2)):
        with suppress(LedgerClientError):
            judge(call, reply(status, body))


@pytest.mark.parametrize("length", ["8193", "9" * 5000])
def test_an_answer_that_is_said_to_be_too_long_is_not_read(length: str) -> None:
    with pytest.raises(AnswerError, match="more than 8192 bytes"):
        BodyReader(TILE, httpx.Response(200, headers={"Content-Length": length}))


def test_an_answer_that_becomes_too_long_is_left_unread() -> None:
    reader = BodyReader(TILE, httpx.Response(200))
    reader.add(bytes(8192))
    assert len(reader.reply().body) == 8192
    with pytest.raises(AnswerError, match="more than 8192 bytes"):
        reader.add(b"!")


def test_packed_answers_are_not_unpacked() -> None:
    with pytest.raises(AnswerError, match="compressed"):
        BodyReader(calls.supply(), httpx.Response(200, headers={"Content-Encoding": "gzip"}))


# Asking again


@given(st.integers(1, 4), st.floats(0, 30))
def test_a_wait_is_bounded_and_never_shorter_than_asked(failures: int, asked_s: float) -> None:
    retries = Retries(tries=5, first_s=0.5, longest_s=30)
    wait_s = retries.pause_s(failures, BusyError("busy", asked_s))
    assert asked_s + 0.25 <= wait_s or asked_s == 0.0
    assert wait_s <= asked_s + 0.5 * 2 ** (failures - 1)


def test_the_last_failure_is_the_callers() -> None:
    error = UnreachableError("gone")
    with pytest.raises(UnreachableError) as raised:
        Retries(tries=3).pause_s(3, error)
    assert raised.value is error
    with pytest.raises(UnreachableError):
        NO_RETRIES.pause_s(1, error)


def test_nobody_waits_longer_than_they_want() -> None:
    with pytest.raises(BusyError):
        Retries(longest_s=30).pause_s(1, BusyError("busy", 31))


@pytest.mark.parametrize("error", [AnswerError("none"), RefusedError("malformed", "no", 400)])
def test_what_would_not_pass_is_not_asked_again(error: LedgerClientError) -> None:
    with pytest.raises(type(error)):
        Retries().pause_s(1, error)
