"""From a call to its HTTP request, and from the reply to the answer or its error. Pure: the clients do the sending."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx

from nectar_ledger_client.call import Call
from nectar_ledger_client.errors import AnswerError, BusyError, LedgerClientError, RefusedError, UnreachableError
from nectar_ledger_client.events import MEDIA_TYPE
from nectar_ledger_client.fields import Fields, clean
from nectar_ledger_client.signing import signature_headers

T = TypeVar("T")

BUSY: Final = (429, 503)
PASSING: Final = (408, 500, 502, 504)
DEFAULT_RETRY_S: Final = 1.0
MAX_ERROR_BYTES: Final = 64 << 10
HEADERS: Final = {"User-Agent": "nectar-ledger-client", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Reply:
    """What came back, whole and within its bounds."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def base_url(address: str) -> httpx.URL:
    """A ledger's address as a URL. Raises LedgerClientError for what is none."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise LedgerClientError(f"{address[:200]!r} is not a ledger's address ({error})") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise LedgerClientError(f"{address[:200]!r} is not a ledger's address; write it as https://ledger.example")
    return url


def build_request(base: httpx.URL, call: Call[T], now_s: int) -> httpx.Request:
    """The request to send at `now_s` (Unix time): each try has its own, as a signature counts once."""
    url = base.copy_with(path=base.path.rstrip("/") + call.path, params=dict(call.params) or None)
    headers = {**HEADERS, **call.headers}
    if call.body is not None:
        headers["Content-Type"] = "application/octet-stream"
    if call.signer is not None:
        headers |= signature_headers(call.signer, call.method, str(url), call.body or b"", now_s)
    return httpx.Request(call.method, url, headers=headers, content=call.body)


class BodyReader:
    """Gathers the body of a response. Raises AnswerError for more bytes than the call takes, or for packed ones."""

    def __init__(self, call: Call[T], response: httpx.Response) -> None:
        self._most = call.max_bytes if response.status_code == call.status else MAX_ERROR_BYTES
        self._response = response
        self._data = bytearray()
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise AnswerError("the answer is compressed, though it was asked not to be: is there a ledger?")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length[:20]) > self._most:
            raise self._too_long()

    def add(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > self._most:
            raise self._too_long()

    def reply(self) -> Reply:
        return Reply(self._response.status_code, self._response.headers, bytes(self._data))

    def _too_long(self) -> AnswerError:
        return AnswerError(f"the answer has more than {self._most} bytes: is there a ledger at this address?")


def judge(call: Call[T], reply: Reply) -> T:
    """The answer. Raises the error that the reply is."""
    if reply.status == call.status:
        return call.parse(reply.body)
    raise error_of(reply)


def error_of(reply: Reply) -> LedgerClientError:
    """What a reply means that is not the answer."""
    if reply.status in BUSY:
        message = _said(reply)[1] or "it is busy"
        return BusyError(f"the ledger asks to come back later: {message}", _retry_after_s(reply))
    if reply.status in PASSING:
        return UnreachableError(f"the ledger fails with status {reply.status}; try again later, or tell its operator")
    code, message = _said(reply)
    if 400 <= reply.status < 500 and code:
        return RefusedError(code, message, reply.status)
    return AnswerError(f"status {reply.status} without a ledger's reason: is there a ledger at this address?")


def is_stream(response: httpx.Response) -> bool:
    """Is it a stream of events?"""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return response.status_code == 200 and media_type == MEDIA_TYPE


def unreachable(base: httpx.URL, error: Exception) -> UnreachableError:
    """The error of a request that had no whole reply."""
    what = "it did not answer in time" if isinstance(error, httpx.TimeoutException | TimeoutError) else str(error)
    return UnreachableError(f"the ledger at {base} cannot be reached: {clean(what) or type(error).__name__}")


def _said(reply: Reply) -> tuple[str, str]:
    """Code and message of an error's body; empty ones where it has none."""
    try:
        fields = Fields.parse(reply.body, "the error")
        return clean(fields.text("error", 64)), fields.words("message")
    except AnswerError:
        return "", ""


def _retry_after_s(reply: Reply) -> float:
    """What the ledger asks for in whole seconds; a date is not read."""
    value = reply.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 10 else DEFAULT_RETRY_S
