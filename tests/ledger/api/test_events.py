"""Events: every entry once, in order, to whoever listens, also after a pause; and nothing that is sealed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import httpx
import pytest
from nectar_ledger.api import events
from nectar_ledger.api.limits import Limits
from nectar_ledger.core.orders import Tick
from nectar_protocol.commands import KeyPurpose, Outcome
from nectar_protocol.entry import Kind

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import ALICE, NO_LIMITS, NODE, OWNER, Served
from tests.ledger.world import HOUR_MS, POLICY, World, person

AUDITOR = person("auditor")
Received = tuple[int, str, dict[str, Any]]


@contextmanager
def listening(served: Served, after: int | None = None) -> Iterator[Iterator[Received]]:
    """What a listener gets: (index, kind, data)."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with served.http.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield _events(answer)


def _events(answer: httpx.Response) -> Iterator[Received]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "id" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def test_a_listener_hears_what_is_committed_from_now_on(serve: Serve) -> None:
    served, session = serve(), person("session")
    with listening(served) as heard:
        first = served.service.durable_size
        hold = served.hold(session)
        settled = served.receipts(NODE, served.world.receipt(hold, NODE, session, 1, 5))[0]
        served.record(served.world.fund(ALICE, 1_000))
        got = list(islice(heard, 3))
    assert [(index, kind) for index, kind, _ in got] == [(first, "hold"), (first + 1, "settle"), (first + 2, "purse")]
    assert got[1][0] == settled["index"]
    assert got[1][2]["node"] == NODE.public.hex()
    assert got[2][2] == {
        "index": first + 2, "time_ms": served.clock(), "command": "fund-purse", "account": ALICE.public.hex(),
        "amount_ucr": "1000",
    }  # fmt: skip


def test_who_comes_back_hears_what_it_has_missed_and_then_what_is_new(serve: Serve) -> None:
    served = serve()
    served.record(*(served.world.fund(ALICE, 1_000) for _ in range(2 * events.PAGE)))
    with listening(served, after=1) as heard:
        missed = list(islice(heard, served.service.durable_size - 2))
        served.record(served.world.fund(ALICE, 2_000))
        (new,) = islice(heard, 1)
    assert [index for index, _, _ in missed] == list(range(2, served.service.durable_size - 1))
    assert new[0] == served.service.durable_size - 1


def test_who_was_away_for_long_hears_the_newest(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_REPLAY", 2)
    served = serve()
    with listening(served, after=0) as heard:
        got = [index for index, _, _ in islice(heard, 2)]
    assert got == [served.service.durable_size - 2, served.service.durable_size - 1]


def test_an_id_that_has_not_come_yet_is_taken_for_the_newest(serve: Serve) -> None:
    served = serve()
    with listening(served, after=10**6) as heard:
        served.record(served.world.fund(ALICE, 1_000))
        assert next(heard)[0] == served.service.durable_size - 1


def test_many_listeners_hear_the_same_however_far_they_are(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 100)
    served = serve()
    with listening(served) as first, listening(served) as second, listening(served, after=0) as third:
        size = served.service.durable_size
        served.record(*(served.world.fund(ALICE, 1_000) for _ in range(300)))
        new = list(range(size, size + 300))
        assert [index for index, _, _ in islice(first, len(new))] == new
        assert [index for index, _, _ in islice(second, len(new))] == new
        assert [index for index, _, _ in islice(third, size - 1 + len(new))] == [*range(1, size), *new]


@pytest.mark.parametrize("limits", [replace(NO_LIMITS, listeners=1), replace(NO_LIMITS, listeners_per_address=1)])
def test_listeners_are_counted_and_a_seat_becomes_free_again(serve: Serve, limits: Limits) -> None:
    served = serve(limits=limits)
    with listening(served):
        answer = served.http.get("/v1/events")
        assert (answer.status_code, answer.json()["error"]) == (503, "full")
        assert served.metric("nectar_listeners") == 1
    while served.metric("nectar_listeners"):
        pass
    with listening(served, after=0) as heard:
        assert next(heard)[0] == 1


def test_an_id_that_is_no_index_is_refused(served: Served) -> None:
    answer = served.http.get("/v1/events", headers={"Last-Event-ID": "-1"})
    assert (answer.status_code, answer.json()["error"]) == (422, "wrong-parameter")


def test_no_event_tells_what_is_sealed(serve: Serve) -> None:
    """Neither who pays for a session, nor what an auditor has found while the batch is open."""
    policy = replace(POLICY, probes_ppm=3_000_000)
    world = World(policy)
    served, session = serve(world), person("session")
    hold = served.hold(session, {NODE: 10**6}, ALICE)
    first = served.service.durable_size - 1
    served.record(world.receipt(hold, NODE, session, 1, 5), world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    (batch,) = served.service.state.batches
    served.record(world.verdict(AUDITOR, NODE, batch, hold, Outcome.FAILED))
    with listening(served, after=first - 1) as heard:
        got = list(islice(heard, 4))
    opened, verdict = got[0][2], got[3][2]
    assert [kind for _, kind, _ in got] == ["hold", "settle", "key", "verdict"]
    assert set(opened) == {"index", "time_ms", "hold", "model", "weight", "revision", "nodes"}
    assert set(verdict) == {"index", "time_ms"}
    assert ALICE.public.hex() not in json.dumps(got)


def test_every_kind_of_entry_has_words(serve: Serve) -> None:
    served, session, free = serve(), person("session"), person("free session")
    world, state = served.world, served.service.state
    hold, walk = served.hold(session, {NODE: 10**6}, ALICE), served.hold(free)
    served.record(world.receipt(hold, NODE, session, 1, 5, final=True), world.receipt(walk, NODE, free, 1, 5))
    batch = next(iter(state.batches))
    served.record(
        world.set_key(AUDITOR, KeyPurpose.AUDITOR), world.verdict(AUDITOR, NODE, batch, walk, Outcome.PASSED),
        world.dispute(free, walk, NODE), world.withdraw(ALICE, 1_000), world.change_payee(NODE, OWNER, ALICE),
        world.publish_policy(replace(POLICY, version=2)),
    )  # fmt: skip
    served.clock.now_ms += 2 * HOUR_MS
    while served.record(Tick())[0].index is not None:
        pass
    log = served.service.log
    told = [events.event_of(index, log.entry(index)) for index in range(log.size())]
    assert {event.kind for event in told} == {events.name_of(kind) for kind in Kind}
    for event in told:
        assert event.kind == "verdict" or len(event.data) > 2, event
        assert len(json.dumps(event.data)) < 1_000
