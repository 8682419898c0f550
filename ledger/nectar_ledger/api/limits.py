"""How much anybody may ask for, and how slowly. All numbers are the operator's to change."""

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nectar_ledger.api.errors import ApiError, Problem, error_response

MAX_BUCKETS = 100_000


@dataclass(frozen=True)
class Rate:
    """`burst` at once, and so many per second in the long run."""

    per_s: float
    burst: int


@dataclass(frozen=True)
class Limits:
    """What a ledger on one machine can bear. An address is an IPv4 address or an IPv6 /64.

    Verifications are those of signatures: two for a receipt, one or two for a command, one for a request. A signature
    that is wrong counts as `bad_signature_cost` of them. Strangers' commands are those that need neither credits nor
    the operator's leave.
    """

    requests_per_address: Rate = Rate(500, 5_000)
    verifications_per_address: Rate = Rate(8_000, 40_000)
    verifications_per_key: Rate = Rate(4_000, 20_000)
    commands_per_key: Rate = Rate(50, 1_000)
    strangers_per_address: Rate = Rate(1, 100)
    bad_signature_cost: int = 100
    signatures_in_flight: int = 16_384
    listeners: int = 256
    listeners_per_address: int = 16
    nonces: int = 200_000
    evidence_bytes: int = 32 << 20
    evidence_s: float = 300
    body_s: float = 30
    send_s: float = 30


class Buckets:
    """A token bucket for each key that was seen lately. For any number of threads."""

    def __init__(self, what: str, rate: Rate, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._what, self._rate, self._clock_s = what, rate, clock_s
        self._full_at_s: OrderedDict[Hashable, float] = OrderedDict()
        self._lock = Lock()

    def take(self, key: Hashable, count: int = 1) -> None:
        """Raises ApiError if the bucket has not so many left; a full one lets anything pass."""
        per_s, burst = self._rate.per_s, self._rate.burst
        with self._lock:
            now_s = self._clock_s()
            missing = max(0.0, self._full_at_s.get(key, now_s) - now_s) * per_s
            wait_s = (missing + min(count, burst) - burst) / per_s
            if wait_s <= 0:
                self._put(key, now_s, missing + count)
                return
        message = f"too many {self._what}: at most {per_s:g} per second in the long run"
        raise ApiError(Problem.TOO_MANY_REQUESTS, message, wait_s)

    def fine(self, key: Hashable, count: int) -> None:
        """Take them whether or not they are there."""
        with self._lock:
            now_s = self._clock_s()
            self._put(key, now_s, max(0.0, self._full_at_s.get(key, now_s) - now_s) * self._rate.per_s + count)

    def _put(self, key: Hashable, now_s: float, missing: float) -> None:
        self._full_at_s[key] = now_s + missing / self._rate.per_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > MAX_BUCKETS:
            self._full_at_s.popitem(last=False)


def address_of(connection: HTTPConnection) -> str:
    """Whom to hold responsible for a request: an IPv4 address, or the /64 that somebody has of IPv6."""
    client = connection.client
    if client is None:
        return "local"
    try:
        address = ipaddress.ip_address(client.host.partition("%")[0])
    except ValueError:
        return client.host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Gate:
    """Middleware: counts each address's requests, and lets nobody take an answer slower than `send_s` a piece."""

    def __init__(self, app: ASGIApp, buckets: Buckets, send_s: float) -> None:
        self._app, self._buckets, self._send_s = app, buckets, send_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stalled = False

        async def send_in_time(message: Message) -> None:
            nonlocal stalled
            try:
                async with asyncio.timeout(self._send_s):
                    await send(message)
            except TimeoutError:
                stalled = True
                raise

        try:
            self._buckets.take(address_of(HTTPConnection(scope)))
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send_in_time)
        except ClientDisconnect:
            return
        except Exception:
            if not stalled:
                raise
