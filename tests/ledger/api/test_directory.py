"""Heartbeats, and the directory made of them: only what nodes signed, no longer than they said, and not too much."""

from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nectar_ledger.directory import MAX_SKEW_MS, Directory
from nectar_ledger.errors import FullError
from nectar_protocol.address import Address
from nectar_protocol.announcement import MAX_SIZE, Announcement, NodeState, Profile
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import NODE, Clock, Served
from tests.ledger.world import MODEL, START_MS, person

OTHER = ModelID(bytes(32))


def announced(node: Identity = NODE, issued_ms: int = START_MS, **changes: Any) -> Announcement:
    announcement = Announcement(
        node.public, ModelID(MODEL.model), issued_ms, issued_ms + 75_000, 0, 8, Profile.BF16, NodeState.SERVING, 900,
        40, (Address.parse("/ip4/192.0.2.1/tcp/31330"),),
    )  # fmt: skip
    return replace(announcement, **changes).signed(node)


def listed(served: Served, **query: str) -> list[dict[str, Any]]:
    answer = served.http.get("/v1/directory", params=query)
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_heartbeat_lists_its_node_until_it_expires(serve: Serve) -> None:
    served = serve()
    beat = announced()
    answer = served.http.post("/v1/heartbeats", content=beat.pack())
    assert (answer.status_code, answer.content) == (204, b"")
    (item,) = listed(served)
    assert Announcement.unpack(b64decode(item["announcement"])) == beat
    assert (item["node"], item["peer_id"]) == (NODE.public.hex(), NODE.peer_id)
    assert (item["profile"], item["state"], item["addresses"]) == ("bf16", "serving", ["/ip4/192.0.2.1/tcp/31330"])
    assert listed(served, model=MODEL.model.hex()) == [item]
    assert listed(served, model=OTHER.hex()) == []
    served.clock.now_ms = beat.expires_ms
    assert listed(served) == []
    served.service.directory.sweep()
    assert served.service.directory.count == 0


def test_a_node_that_leaves_is_listed_no_more_and_an_older_word_does_not_bring_it_back(serve: Serve) -> None:
    served = serve()
    serving, leaving = announced(), announced(issued_ms=START_MS + 1, state=NodeState.LEAVING)
    for beat in (serving, leaving, serving):
        assert served.http.post("/v1/heartbeats", content=beat.pack()).status_code == 204
    assert listed(served) == []


def test_the_directory_is_read_page_by_page(serve: Serve) -> None:
    served = serve()
    nodes = [person(f"node {number}") for number in range(5)]
    for node in nodes:
        served.http.post("/v1/heartbeats", content=announced(node).pack())
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = served.http.get("/v1/directory", params={"limit": "2"} | after).json()
        found += [item["node"] for item in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found == sorted(node.public.hex() for node in nodes)


@pytest.mark.parametrize("issued_ms", [START_MS + MAX_SKEW_MS + 1, START_MS - 75_000])
def test_a_heartbeat_is_of_now(served: Served, issued_ms: int) -> None:
    answer = served.http.post("/v1/heartbeats", content=announced(issued_ms=issued_ms).pack())
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed")
    assert str(START_MS) in answer.json()["message"]


def test_nobody_announces_another(served: Served) -> None:
    forged = replace(announced(), signature=person("mallory").sign(b"nectar/announcement/v1\n", announced().body()))
    answer = served.http.post("/v1/heartbeats", content=forged.pack())
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-signature")


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_but_a_signed_announcement_are_listed(served: Served, data: st.DataObject) -> None:
    sample = announced(person("fuzzed node")).pack()
    start = data.draw(st.integers(0, len(sample)))
    body = sample[:start] + data.draw(st.binary(max_size=MAX_SIZE - start)) + sample[data.draw(st.integers(start)) :]
    if body == sample:
        return
    answer = served.http.post("/v1/heartbeats", content=body)
    assert answer.status_code in (400, 413)
    assert set(answer.json()) == {"error", "message"}
    assert served.service.directory.count == 0


def test_strangers_cannot_take_the_room_of_bound_nodes() -> None:
    clock = Clock()
    directory = Directory(clock, max_bound=2, max_strangers=1)
    directory.put(announced(person("stranger 1")), is_bound=False)
    with pytest.raises(FullError):
        directory.put(announced(person("stranger 2")), is_bound=False)
    for name in ("bound 1", "bound 2"):
        directory.put(announced(person(name)), is_bound=True)
    with pytest.raises(FullError):
        directory.put(announced(person("bound 3")), is_bound=True)
    directory.put(announced(person("bound 1"), issued_ms=START_MS + 1), is_bound=True)
    clock.now_ms += 100_000
    directory.put(announced(person("bound 3"), issued_ms=clock()), is_bound=True)
    assert [kept.node for kept in directory.page(None, None, 10)] == [person("bound 3").public]


def test_a_node_that_is_bound_later_leaves_the_strangers_room() -> None:
    directory = Directory(Clock(), max_strangers=1)
    directory.put(announced(NODE), is_bound=False)
    directory.put(announced(NODE, issued_ms=START_MS + 1), is_bound=True)
    directory.put(announced(person("stranger")), is_bound=False)
    assert directory.count == 2


def test_one_node_is_listed_once_for_each_model() -> None:
    directory = Directory(Clock())
    for model in (ModelID(MODEL.model), OTHER):
        directory.put(announced(model=model), is_bound=True)
    assert [kept.model for kept in directory.page(None, None, 10)] == sorted([MODEL.model, OTHER])
    with pytest.raises(MalformedError, match="expired"):
        directory.put(announced(issued_ms=START_MS - 80_000), is_bound=True)
