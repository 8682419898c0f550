"""What a ledger answers is read strictly: real answers, with everything in them changed, one thing at a time."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_ledger_client import calls
from nectar_ledger_client.call import Call
from nectar_ledger_client.errors import AnswerError, LedgerClientError
from nectar_ledger_client.exchange import base_url, build_request
from nectar_ledger_client.fields import Fields
from nectar_ledger_client.page import Cursor, Page
from nectar_ledger_client.promise import hold_check
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.money import MAX_UCR

from tests.ledger.api.served import ALICE, LIFE_MS, NODE, OWNER, Served
from tests.ledger.world import person

Answered = tuple[Call[Any], Any]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["0", "ff", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def answered(served: Served) -> list[Answered]:
    """Each call with the JSON that a ledger answers it with."""
    world, session, now_ms = served.world, person("session"), served.clock()
    order = world.open_hold(ALICE, session, {NODE: 10**6}, now_ms + LIFE_MS)
    hold = served.open(order)
    (settled,) = served.record(world.receipt(hold, NODE, session, 1, 5))
    assert settled.index is not None
    announcement = Announcement(
        NODE.public, world.model.model, now_ms, now_ms + 60_000, 0, 4, Profile.F32, NodeState.SERVING, 5, 1, ()
    ).signed(NODE)
    served.http.post("/v1/heartbeats", content=announcement.pack()).raise_for_status()
    start, newer = Cursor(), world.receipt(hold, NODE, session, 2, 6).receipt
    batch = next(iter(served.service.state.batches))
    asked: list[Call[Any]] = [
        calls.ledger(), calls.command(order.signed, hold_check(order.signed, world.keys.holds.public)),
        calls.receipts(NODE, [newer]), calls.policy(), calls.policies(start), calls.models(start),
        calls.model(world.model.model), calls.balance(ALICE.public), calls.statement(ALICE.public, start),
        calls.nodes_of(OWNER.public, start), calls.purse(ALICE), calls.purse_statement(ALICE, start),
        calls.holds_of(ALICE, start), calls.hold(hold.id), calls.nodes(start), calls.node(NODE.public),
        calls.batches_of(NODE.public, start), calls.batch(batch), calls.settlements(batch, start),
        calls.settlements_of_hold(hold.id, start), calls.supply(), calls.epochs(start), calls.entry(settled.index),
        calls.directory(world.model.model, Cursor(ascending=True)),
    ]  # fmt: skip
    return [(call, send(served, call)) for call in asked]


def send(served: Served, call: Call[Any]) -> Any:
    response = served.http.send(build_request(base_url(served.url), call, served.clock() // 1000))
    assert response.status_code == call.status, response.text
    return response.json()


def parse(call: Call[Any], value: Any) -> Any:
    return call.parse(json.dumps(value).encode())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a JSON value, with each key of it."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def test_every_answer_is_read(answered: list[Answered]) -> None:
    for call, value in answered:
        assert parse(call, value) is not None
        if isinstance(parse(call, value), Page) and "epochs" not in call.path:
            assert parse(call, value).items, call.path


def test_what_a_newer_ledger_adds_is_passed_over(answered: list[Answered]) -> None:
    for call, value in answered:
        more = deepcopy(value)
        for container in [more, *(container[key] for container, key in places(more))]:
            if isinstance(container, dict):
                container["of a newer version"] = {"a": [1.5]}
        assert parse(call, more) == parse(call, value), call.path


# Where these are shown, what counts is the object itself, beside its view in JSON.
PACKED = ("/v1/polic", "/v1/models", "/v1/entries", "/v1/directory")


def test_an_answer_with_a_field_missing_is_none(answered: list[Answered]) -> None:
    for call, value in answered:
        for number, (where, key) in enumerate(places(value)):
            if isinstance(where, list):
                continue
            less = deepcopy(value)
            del next(container for count, (container, _) in enumerate(places(less)) if count == number)[key]
            try:
                same = parse(call, less) == parse(call, value)
            except AnswerError:
                continue
            assert same, (call.path, key)
            assert call.path.startswith(PACKED), (call.path, key)


@given(st.data(), json_values)
def test_whatever_stands_in_an_answer_is_read_or_refused(
    answered: list[Answered], data: st.DataObject, value: Any
) -> None:
    call, original = data.draw(st.sampled_from(answered))
    changed = deepcopy(original)
    container, key = data.draw(st.sampled_from(list(places(changed))))
    container[key] = value
    try:
        parse(call, changed)
    except LedgerClientError:
        return


# One by one


@pytest.mark.parametrize("name", ["amount", "signed_amount", "total"])
@pytest.mark.parametrize("value", ["", "01", "1.5", "1e3", "-0", "+1", " 1", "1 ", "٣", str(2**64), 5, 1.0, None, True])
def test_only_whole_numbers_as_text_are_amounts(name: str, value: object) -> None:
    with pytest.raises(AnswerError):
        getattr(Fields({"a": value}), name)("a")


@given(st.integers(0, MAX_UCR))
def test_amounts_are_read_to_the_last_micro_credit(ucr: int) -> None:
    fields = Fields({"in": str(ucr), "out": f"-{ucr}"})
    assert fields.amount("in") == fields.signed_amount("in") == fields.total("in") == ucr
    if ucr:
        assert fields.signed_amount("out") == -ucr


@pytest.mark.parametrize("value", ["AB", "a", "abc", "0x", " ab", "a\n", None, 171, "ab" * 33])
def test_only_lower_case_hex_of_the_right_length_is_bytes(value: object) -> None:
    with pytest.raises(AnswerError):
        Fields({"a": value}).hex("a", 1)


@pytest.mark.parametrize("value", [-1, 2**53, 1.0, True, "1", None])
def test_only_whole_numbers_within_bounds_are_counts(value: object) -> None:
    with pytest.raises(AnswerError):
        Fields({"a": value}).uint("a")


@pytest.mark.parametrize("data", [b"", b"[", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff", b"5", b"null"])
def test_what_is_no_json_object_is_no_answer(data: bytes) -> None:
    with pytest.raises(AnswerError):
        Fields.parse(data)


@pytest.mark.parametrize("following", [5, 6, "5", -1, 1.5])
def test_a_list_that_goes_round_is_left(following: object) -> None:
    read, cursor = (lambda fields: fields.uint("a")), Cursor(5)
    with pytest.raises(AnswerError):
        cursor.following(Page.parse(json.dumps({"items": [{"a": 1}], "next": following}).encode(), read))


def test_a_page_that_goes_on_behind_nothing_is_left() -> None:
    with pytest.raises(AnswerError, match="go on"):
        Page.parse(b'{"items": [], "next": 3}', lambda fields: fields)
