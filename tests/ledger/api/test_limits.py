"""Every limit is met once, and says when to come back."""

import asyncio
import socket
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import httpx
import pytest
import sqlalchemy as sa
from nectar_ledger import server
from nectar_ledger.api.errors import ApiError
from nectar_ledger.api.limits import MAX_BUCKETS, Buckets, Gate, Rate, address_of
from nectar_ledger.core.orders import Tick
from nectar_ledger.store.inbox import MAX_WAITING_BATCHES
from nectar_protocol.commands import MAX_SIZE
from nectar_protocol.hold import SignedHold
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import ALICE, LIFE_MS, NO_LIMITS, NODE, OWNER, Served
from tests.ledger.world import person

ONE = Rate(0.01, 1)
TWO = Rate(0.01, 2)


def is_limited(answer: httpx.Response) -> bool:
    if answer.status_code != 429:
        return False
    assert answer.json()["error"] == "too-many-requests"
    assert 0 < int(answer.headers["Retry-After"]) <= 100
    return True


class Seconds:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Seconds()
    buckets = Buckets("things", Rate(2, 10), clock)
    for _ in range(10):
        buckets.take("a")
    with pytest.raises(ApiError) as refused:
        buckets.take("a", 4)
    assert refused.value.retry_after_s == pytest.approx(2)
    buckets.take("b", 10)
    clock.now_s += 2
    buckets.take("a", 4)
    with pytest.raises(ApiError):
        buckets.take("a")


def test_more_than_a_burst_passes_a_full_bucket_and_is_paid_off() -> None:
    clock = Seconds()
    buckets = Buckets("things", Rate(1, 10), clock)
    buckets.take("a", 30)
    clock.now_s += 20
    with pytest.raises(ApiError):
        buckets.take("a")
    clock.now_s += 1
    buckets.take("a")


def test_a_fine_is_taken_from_an_empty_bucket_too() -> None:
    clock = Seconds()
    buckets = Buckets("things", Rate(1, 10), clock)
    buckets.take("a", 10)
    buckets.fine("a", 100)
    clock.now_s += 100
    with pytest.raises(ApiError):
        buckets.take("a")


def test_buckets_are_bounded_and_the_oldest_goes_first() -> None:
    buckets = Buckets("things", ONE, Seconds())
    for key in range(MAX_BUCKETS + 1):
        buckets.take(key)
    buckets.take(0)
    with pytest.raises(ApiError):
        buckets.take(MAX_BUCKETS)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_an_address_is_one_of_ipv4_or_a_64_of_ipv6(first: str, second: str, same: bool) -> None:
    a, b = (address_of(Request({"type": "http", "headers": [], "client": (host, 1)})) for host in (first, second))
    assert (a == b) is same


def test_requests_of_an_address_are_counted(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, requests_per_address=TWO))
    assert [is_limited(served.http.get("/livez")) for _ in range(3)] == [False, False, True]


def test_signatures_of_an_address_are_counted_and_wrong_ones_count_more(serve: Serve) -> None:
    limits = replace(NO_LIMITS, verifications_per_address=Rate(0.1, 10), bad_signature_cost=9)
    served = serve(limits=limits)
    packed = served.world.fund(ALICE, 1_000).signed.pack()
    wrong = packed[:-1] + bytes([packed[-1] ^ 1])
    assert served.http.post("/v1/commands", content=wrong).json()["error"] == "bad-signature"
    assert is_limited(served.http.post("/v1/commands", content=packed))
    assert is_limited(served.http.post("/v1/heartbeats", content=bytes(300)))


def test_a_wrong_signature_of_a_request_counts_against_its_address(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, verifications_per_address=Rate(0.1, 10), bad_signature_cost=9))
    path = f"/v1/accounts/{ALICE.public.hex()}/purse"
    headers = served.signed(ALICE, "GET", path + "x")
    assert served.http.get(path, headers=headers).status_code == 401
    assert is_limited(served.get(path, ALICE))


def test_commands_of_a_key_are_counted_but_only_those_that_it_signed(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, commands_per_key=ONE))
    packed = served.world.fund(ALICE, 1_000).signed.pack()
    wrong = packed[:-1] + bytes([packed[-1] ^ 1])
    assert served.http.post("/v1/commands", content=wrong).status_code == 400
    assert served.command(served.world.fund(ALICE, 1_000)).status_code == 200
    assert is_limited(served.command(served.world.fund(ALICE, 1_000)))
    operator = served.world.keys.operator
    assert served.command(served.world.grant(ALICE, 1_000)).status_code == 200
    assert operator.public != ALICE.public


def test_what_strangers_may_do_for_nothing_is_counted_by_address(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, strangers_per_address=Rate(0.01, 3)))
    world, session = served.world, person("session")
    free = world.open_hold(session, session, {NODE: 1}, served.clock() + LIFE_MS)
    answer = served.command(free)
    hold = SignedHold.unpack(b64decode(answer.json()["hold"])).hold
    assert served.command(world.bind(person("new node"), OWNER)).status_code == 200
    assert served.command(world.dispute(session, hold, NODE)).status_code == 200
    for order in (
        world.extend(session, hold, {NODE: 2}, served.clock() + LIFE_MS),
        world.open_hold(person("b"), person("b"), {NODE: 1}, served.clock() + LIFE_MS),
        world.bind(person("newer node"), OWNER),
        world.dispute(session, hold, NODE),
    ):
        assert is_limited(served.command(order))
    paid = world.open_hold(ALICE, person("paid"), {NODE: 1}, served.clock() + LIFE_MS)
    assert served.command(paid).status_code == 200


@contextmanager
def stopped_sequencer(served: Served) -> Iterator[None]:
    """In the midst of a write."""
    arrived, goes = Event(), Event()

    def wait(connection: sa.Connection, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("UPDATE log_head"):
            arrived.set()
            assert goes.wait(30)

    sa.event.listen(served.service.database.writing, "before_cursor_execute", wait)
    try:
        served.service.submit([served.world.fund(ALICE, 1_000)])
        assert arrived.wait(30)
        yield
    finally:
        goes.set()
        sa.event.remove(served.service.database.writing, "before_cursor_execute", wait)


def test_a_full_queue_answers_503_and_when_to_come_back(serve: Serve) -> None:
    served, session = serve(beat_s=3600), person("session")
    hold = served.hold(session)
    receipt = served.world.receipt(hold, NODE, session, 1, 5).receipt.pack()
    with stopped_sequencer(served):
        waiting = [served.service.submit([Tick()]) for _ in range(MAX_WAITING_BATCHES)]
        for answer in (
            served.command(served.world.fund(ALICE, 1_000)),
            served.post("/v1/receipts", NODE, receipt),
        ):
            assert (answer.status_code, answer.json()["error"]) == (503, "full")
            assert int(answer.headers["Retry-After"]) >= 1
    assert [len(future.result(30)) for future in waiting] == [1] * MAX_WAITING_BATCHES
    assert served.post("/v1/receipts", NODE, receipt).json()["results"][0]["status"] == "settled"


def test_a_bounded_number_of_signatures_waits_to_be_verified(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, signatures_in_flight=0))
    answer = served.command(served.world.fund(ALICE, 1_000))
    assert (answer.status_code, answer.json()["error"]) == (503, "full")


@pytest.mark.parametrize(("path", "size"), [("/v1/commands", MAX_SIZE), ("/v1/heartbeats", 300)])
def test_bodies_are_bounded_with_and_without_a_length(served: Served, path: str, size: int) -> None:
    body = bytes(size + 1)
    for content in (body, iter([body[:100], body[100:]])):
        answer = served.http.post(path, content=content)
        assert (answer.status_code, answer.json()["error"]) == (413, "too-large")


def raw(served: Served, request: bytes) -> bytes:
    """All that a connection gets for these bytes until it is closed."""
    with socket.create_connection((served.http.base_url.host, served.http.base_url.port or 0), 30) as connection:
        connection.sendall(request)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, body_s=0.05))
    answer = raw(served, b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nNEC")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"error":"too-slow"' in answer


def test_who_goes_away_while_sending_leaves_no_trace(served: Served) -> None:
    host, port = served.http.base_url.host, served.http.base_url.port or 0
    with socket.create_connection((host, port), 30) as connection:
        connection.sendall(b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nNEC")
    assert served.http.get("/livez").status_code == 200


def test_a_head_has_a_size(served: Served) -> None:
    answer = raw(served, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (server.MAX_HEAD_BYTES + 65536))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_many_small_requests_on_one_connection_are_no_large_head(served: Served) -> None:
    for _ in range(20):
        assert served.http.get("/livez", headers={"X": "x" * 4000}).status_code == 200


@pytest.mark.parametrize("begin", [b"", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li"])
def test_a_head_that_does_not_come_is_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.1)
    answer = raw(serve(), begin)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200 ")


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    ended: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except BaseException as error:
            ended.append(error)
            raise

    async def stuck(message: Message) -> None:
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    gate = Gate(app, Buckets("requests", ONE), 0.01)
    await gate({"type": "http", "headers": [], "client": ("192.0.2.1", 1)}, receive, stuck)
    assert [type(error) for error in ended] == [TimeoutError]
