"""Posting receipts: what is recorded, what is refused and why, and what costs nothing."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nectar_ledger.api.limits import Rate
from nectar_ledger.api.posting import MAX_BYTES, MAX_RECEIPTS, MAX_WRONG
from nectar_ledger.core.orders import Settle
from nectar_protocol.announcement import Profile
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SIZE
from nectar_protocol.record import MAX_COUNT

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import ALICE, NO_LIMITS, NODE, OWNER, Served
from tests.ledger.world import POLICY, decoded, person

SUPERSEDED = {"status": "superseded"}
BAD = bytes(64)


def opened(served: Served, name: str, **settings: Any) -> tuple[Hold, Identity]:
    """A hold of a session of that name."""
    session = person(name)
    return served.hold(session, **settings), session


def refusals(results: list[dict[str, Any]]) -> list[str]:
    return [result.get("error", result["status"]) for result in results]


def unsigned(receipt: Settle, server: bool = False, session: bool = False) -> Settle:
    """With a wrong signature of the one or of the other."""
    signed = receipt.receipt
    if server:
        signed = replace(signed, server_signature=BAD)
    if session:
        signed = replace(signed, session_signature=BAD)
    return Settle(signed)


def verifications(served: Served) -> float:
    """How many have been paid for so far."""
    return served.metric("nectar_verifications_total")


def test_a_receipt_is_settled_once_and_superseded_when_it_comes_again(served: Served) -> None:
    hold, session = opened(served, "session 1")
    first, second = (served.world.receipt(hold, NODE, session, seq, 5 * seq) for seq in (1, 2))
    (settled,) = served.receipts(NODE, first)
    assert settled["status"] == "settled"
    assert served.receipts(NODE, first) == [SUPERSEDED]
    (again,) = served.receipts(session, second)
    assert again == {"status": "settled", "index": settled["index"] + 1}


def test_each_receipt_of_a_batch_has_its_answer_in_order(served: Served) -> None:
    world = served.world
    (hold, session), (other, another) = opened(served, "batch 1"), opened(served, "batch 2")
    results = served.receipts(
        NODE,
        world.receipt(hold, NODE, session, 2, 20),
        world.receipt(other, NODE, another, 1, 10),
        world.receipt(hold, NODE, session, 1, 10),
        world.receipt(hold, NODE, session, 3, 10**6),
    )
    assert refusals(results) == ["settled", "settled", "superseded", "over-cap"]


def test_of_a_line_only_the_newest_receipt_is_verified(served: Served) -> None:
    hold, session = opened(served, "many receipts")
    batch = [served.world.receipt(hold, NODE, session, seq, 5 * seq) for seq in range(1, 21)]
    older = [unsigned(receipt, server=True, session=True) for receipt in batch[:-1]]
    before = verifications(served)
    results = served.receipts(NODE, *older, batch[-1])
    assert refusals(results) == ["superseded"] * 19 + ["settled"]
    # The request's own, and two of the receipt.
    assert verifications(served) - before == 3
    assert served.receipts(NODE, *batch) == [SUPERSEDED] * 20
    assert verifications(served) - before == 4


def test_if_the_newest_of_a_line_is_bad_the_one_before_it_counts(served: Served) -> None:
    hold, session = opened(served, "a bad end")
    good, bad = (served.world.receipt(hold, NODE, session, seq, 5 * seq) for seq in (1, 2))
    assert refusals(served.receipts(NODE, unsigned(bad, session=True), good)) == ["bad-signature", "settled"]
    assert refusals(served.receipts(NODE, bad)) == ["settled"]


def test_a_node_that_has_not_signed_a_receipt_itself_has_nothing_recorded(served: Served) -> None:
    (hold, session), (other, another) = opened(served, "server fault 1"), opened(served, "server fault 2")
    good, bad = served.world.receipt(hold, NODE, session, 1, 5), served.world.receipt(other, NODE, another, 1, 5)
    before = served.service.durable_size
    answer = served.post("/v1/receipts", NODE, good.receipt.pack() + unsigned(bad, server=True).receipt.pack())
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-signature")
    assert served.service.durable_size == before


def test_for_a_session_a_wrong_server_signature_costs_that_receipt_alone(served: Served) -> None:
    second = person("second node")
    served.record(served.world.bind(second, OWNER))
    hold, session = opened(served, "two nodes", caps={NODE: 10_000_000, second: 10_000_000})
    good, bad = (served.world.receipt(hold, node, session, 1, 5) for node in (NODE, second))
    assert refusals(served.receipts(session, good, unsigned(bad, server=True))) == ["settled", "bad-signature"]


def test_a_batch_with_many_wrong_signatures_is_not_verified_to_its_end(served: Served) -> None:
    hold, session = opened(served, "many wrong")
    batch = [
        unsigned(served.world.receipt(hold, NODE, session, seq, 5 * seq), session=True)
        for seq in range(1, MAX_WRONG + 3)
    ]
    answer = served.post("/v1/receipts", NODE, b"".join(bad.receipt.pack() for bad in batch))
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-signature")


def test_a_receipt_is_posted_by_its_own_two_alone(served: Served) -> None:
    hold, session = opened(served, "own receipt")
    receipt = served.world.receipt(hold, NODE, session, 1, 5)
    assert refusals(served.receipts(person("thief"), receipt)) == ["not-authorized"]


def test_what_a_receipt_must_not_be_is_refused_before_any_signature(served: Served) -> None:
    world, stranger = served.world, person("unbound node")
    hold, session = opened(served, "refused receipts")
    foreign = replace(hold, id=bytes(32))
    served.receipts(NODE, world.receipt(hold, NODE, session, 5, 50))
    cases = {
        "unknown-hold": world.receipt(foreign, NODE, session, 1, 5),
        "no-line": world.receipt(hold, stranger, session, 1, 5),
        "wrong-session": world.receipt(hold, NODE, person("other session"), 6, 60),
        "wrong-units": world.receipt(hold, NODE, session, 6, 60, units=1_000_000),
        "wrong-totals": world.receipt(hold, NODE, session, 6, 60, work=decoded(40)),
        "over-cap": world.receipt(hold, NODE, session, 6, 10**6),
        "superseded": world.receipt(hold, NODE, session, 4, 10),
    }
    before = verifications(served)
    for code, receipt in cases.items():
        bad = unsigned(receipt, server=True, session=True)
        sender = stranger if code == "no-line" else NODE
        assert refusals(served.receipts(sender, bad)) == [code]
    assert verifications(served) - before == len(cases)


def test_a_rolled_back_receipt_is_refused(served: Served) -> None:
    """A later number with smaller totals, signed by both."""
    hold, session = opened(served, "rolled back")
    served.receipts(NODE, served.world.receipt(hold, NODE, session, 1, 50))
    assert refusals(served.receipts(NODE, served.world.receipt(hold, NODE, session, 2, 40))) == ["wrong-totals"]


def test_a_profile_that_the_hold_does_not_take_is_refused(served: Served) -> None:
    session = person("choosy session")
    order = served.world.open_hold(session, session, {NODE: 10_000_000}, served.clock() + 1_000)
    signed = replace(order.signed.command, profiles=frozenset({Profile.F32})).signed(session)
    hold = served.open(replace(order, signed=signed))
    receipt = served.world.receipt(hold, NODE, session, 1, 5, profile=Profile.INT8)
    assert refusals(served.receipts(NODE, receipt)) == ["wrong-profile"]


def test_after_a_final_receipt_nothing_follows(served: Served) -> None:
    second = person("a node that goes on")
    served.record(served.world.bind(second, OWNER))
    hold, session = opened(served, "final", caps={NODE: 10_000_000, second: 10_000_000})
    last = served.world.receipt(hold, NODE, session, 1, 5, final=True)
    after = served.world.receipt(hold, NODE, session, 2, 6)
    assert refusals(served.receipts(NODE, last)) == ["settled"]
    assert refusals(served.receipts(NODE, after)) == ["line-final"]


def test_a_closed_hold_answers_for_what_it_has_had(served: Served) -> None:
    hold, session = opened(served, "closed")
    first, last = (served.world.receipt(hold, NODE, session, seq, 5 * seq, final=seq == 2) for seq in (1, 2))
    late = served.world.receipt(hold, NODE, session, 3, 20)
    assert refusals(served.receipts(NODE, first, last)) == ["superseded", "settled"]
    assert hold.id not in served.service.state.holds
    assert refusals(served.receipts(NODE, last, first, late)) == ["superseded", "superseded", "hold-closed"]


def test_after_its_grace_a_hold_settles_no_more(serve: Serve) -> None:
    served = serve()
    hold, session = opened(served, "late")
    first, second = (served.world.receipt(hold, NODE, session, seq, 5 * seq) for seq in (1, 2))
    served.clock.now_ms = hold.expires_ms + POLICY.grace_ms - 1
    assert refusals(served.receipts(NODE, first)) == ["settled"]
    served.clock.now_ms += 2
    assert refusals(served.receipts(NODE, second))[0] in ("hold-expired", "hold-closed")


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_a_body_that_is_not_whole_receipts_is_refused(served: Served, size: int) -> None:
    answer = served.post("/v1/receipts", NODE, bytes(size))
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed")


def test_a_batch_has_a_size(served: Served) -> None:
    hold, session = opened(served, "a full batch")
    batch = [served.world.receipt(hold, NODE, session, 1, 5)] * MAX_RECEIPTS
    assert refusals(served.receipts(NODE, *batch)) == ["superseded"] * (MAX_RECEIPTS - 1) + ["settled"]
    answer = served.post("/v1/receipts", NODE, bytes(MAX_BYTES + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "too-large")


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_but_a_signed_receipt_are_recorded(served: Served, data: st.DataObject) -> None:
    session = person("fuzzed session")
    known = next((live.hold for live in served.service.state.holds.values() if live.hold.session == session.public), 0)
    hold = known or served.hold(session)
    sample = served.world.receipt(hold, NODE, session, MAX_COUNT, 5).receipt.pack()
    start = data.draw(st.integers(0, SIZE))
    junk = data.draw(st.binary(max_size=SIZE - start))
    body = sample[:start] + junk + sample[start + len(junk) :]
    if body == sample:
        return
    before = served.service.durable_size
    answer = served.post("/v1/receipts", NODE, body)
    if answer.status_code == 200:
        assert answer.json()["results"][0]["status"] == "refused"
    else:
        assert (answer.status_code, answer.json()["error"]) == (400, "bad-signature")
    assert served.service.durable_size == before


def test_amounts_at_the_limit_are_refused_and_not_wrapped_around(served: Served) -> None:
    hold, session = opened(served, "limits", payer=ALICE, caps={NODE: 10_000})
    huge = decoded(1)._replace(decode_tokens=MAX_COUNT)
    receipt = served.world.receipt(hold, NODE, session, 1, 1, work=huge, units=MAX_COUNT)
    assert refusals(served.receipts(NODE, receipt)) == ["wrong-units"]


@contextmanager
def held_write(served: Served, error: Exception | None = None) -> Iterator[tuple[Event, Event]]:
    """(the sequencer has applied and is about to write, it may); then `error` happens."""
    arrived, goes = Event(), Event()

    def wait(connection: sa.Connection, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("UPDATE log_head") and not goes.is_set():
            arrived.set()
            assert goes.wait(30)
            if error is not None:
                raise error

    sa.event.listen(served.service.database.writing, "before_cursor_execute", wait)
    try:
        yield arrived, goes
    finally:
        goes.set()
        sa.event.remove(served.service.database.writing, "before_cursor_execute", wait)


def post(served: Served, receipt: Settle) -> httpx.Response:
    return served.post("/v1/receipts", NODE, receipt.receipt.pack())


def post_twice(served: Served, error: Exception | None = None) -> list[httpx.Response]:
    """The same receipt by two senders; the second comes while the first one is applied and not committed."""
    hold, session = opened(served, "twice")
    receipt = served.world.receipt(hold, NODE, session, 1, 5)
    served.service.submit([]).result(30)
    with ThreadPoolExecutor() as threads, held_write(served, error) as (arrived, goes):
        first: Future[httpx.Response] = threads.submit(post, served, receipt)
        assert arrived.wait(30)
        assert served.service.state.holds[hold.id].lines[NODE.public].seq == 1
        second = threads.submit(post, served, receipt)
        while not served.service._sequencer._inbox._waiting:  # until it waits for what is being written
            assert not second.done()
        goes.set()
        return [first.result(30), second.result(30)]


def test_nothing_is_called_superseded_before_what_supersedes_it_is_durable(serve: Serve) -> None:
    served = serve(beat_s=3600)
    first, second = post_twice(served)
    assert refusals(first.json()["results"]) == ["settled"]
    assert second.json()["results"] == [SUPERSEDED]


def test_what_was_superseded_by_a_commit_that_failed_is_to_be_sent_again(serve: Serve) -> None:
    served = serve(beat_s=3600)
    answers = post_twice(served, RuntimeError("the disk is gone"))
    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [(503, "not-recorded")] * 2
    hold, session = next(iter(served.service.state.holds.values())).hold, person("twice")
    assert refusals(served.receipts(NODE, served.world.receipt(hold, NODE, session, 1, 5))) == ["settled"]


def test_signatures_are_counted_by_sender_and_wrong_ones_count_more(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, verifications_per_key=Rate(0.001, 10), bad_signature_cost=7))
    hold, session = opened(served, "counted")
    receipts = [served.world.receipt(hold, NODE, session, seq, 5 * seq) for seq in range(1, 6)]
    assert refusals(served.receipts(NODE, receipts[0])) == ["settled"]
    assert refusals(served.receipts(NODE, unsigned(receipts[1], session=True))) == ["bad-signature"]
    answer = post(served, receipts[2])
    assert (answer.status_code, answer.json()["error"]) == (429, "too-many-requests")
    assert int(answer.headers["Retry-After"]) > 0
    # What costs nothing is still answered, and others are not concerned.
    assert served.receipts(NODE, receipts[0]) == [SUPERSEDED]
    assert refusals(served.receipts(session, receipts[2])) == ["settled"]
