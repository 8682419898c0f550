"""What is private is in no answer that everybody can get: who pays for a hold, and an open batch's verdicts."""

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.commands import Verdict
from nectar_protocol.tiles import new_tiles, unpack_bundle

from tests.ledger.api import served as serving
from tests.ledger.api.served import Served
from tests.ledger.town import ALICE, AUDITOR, BOB, CAROL, FIRST, NORTH, SECOND, SOUTH, TOWN_POLICY, WALKER, Town
from tests.ledger.world import World

# What needs a signed request, a stream without an end, and a file that nobody has put there.
NOT_VISITED = {
    "/v1/accounts/{key}/purse", "/v1/accounts/{key}/purse/statement", "/v1/accounts/{key}/holds", "/v1/events",
    "/v1/evidence/{evidence}",
}  # fmt: skip
KEYS = (ALICE, BOB, CAROL, AUDITOR, NORTH, SOUTH, WALKER, FIRST, SECOND)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served, stop = serving.serve(tmp_path_factory.mktemp("ledger"), World(TOWN_POLICY))
    yield served
    stop()


@pytest.fixture(scope="module")
def town(served: Served) -> Town:
    town = Town(served.world, served.service.submit, served.service.log.entry, served.clock)
    town.live_a_day()
    served.service.signer.sign()
    return town


@pytest.fixture(scope="module")
def visited(served: Served, town: Town) -> dict[str, list[bytes]]:
    """Every public answer, cut into the things that it is about: path → pieces, with encoded bytes decoded."""
    paths = served.http.get("/openapi.json").json()["paths"]
    templates = {template for template, operations in paths.items() if "get" in operations} - NOT_VISITED
    found: dict[str, list[bytes]] = {}
    for template in templates:
        for path in addresses(served, town, template):
            answer = served.http.get(path)
            if answer.status_code == 200:
                found[path] = pieces(path, answer.content, answer.headers.get("content-type", ""), answer)
        assert any(matches(template, path) for path in found), f"nothing was seen of {template}"
    return found


def matches(template: str, path: str) -> bool:
    pattern = re.sub(r"\\{[a-z]+\\}", ".+", re.escape(template))
    return re.fullmatch(pattern, path.partition("?")[0]) is not None


def addresses(served: Served, town: Town, template: str) -> list[str]:
    """All that can be asked for by a template."""
    note = served.service.checkpoint
    assert note is not None
    size = Checkpoint.parse(note.text).size
    tiles = [tile.path.removeprefix("tile/") for tile in new_tiles(0, size)]
    bundles = [path.replace("0/", "entries/", 1) for path in tiles if path.startswith("0/")]
    holds = [hold.id.hex() for hold in (town.free, town.spent, town.live)]
    values = {
        "{key}": [person.public.hex() for person in KEYS],
        "{path}": tiles + bundles,
        "{index}": [str(index) for index in range(size)],
        "{model}": [served.world.model.model.hex()],
        "{id}": [str(number) for number in range(30)] if "batches" in template else holds,
    }
    if template == "/v1/policies/{id}":
        values["{id}"] = [served.world.policy.id.hex()]
    queries = {"/log/consistency": f"?old=1&new={size}", "/v1/directory": f"?model={values['{model}'][0]}"}
    for name, choices in values.items():
        if name in template:
            return [template.replace(name, choice) for choice in choices]
    return [template + queries.get(template, "")]


def pieces(path: str, content: bytes, kind: str, answer: Any) -> list[bytes]:
    """Items of a list and entries of a bundle are about different things; anything else is about one."""
    if path.startswith("/log/tile/entries/"):
        return unpack_bundle(content, int(path.rpartition("/")[2]))
    if not kind.startswith("application/json"):
        return [content]
    body = answer.json()
    items = body["items"] if isinstance(body, dict) and isinstance(body.get("items"), list) else [body]
    return [b"\0".join([path.encode(), *decoded(item)]) for item in items]


def decoded(value: Any) -> Iterator[bytes]:
    """All that JSON says, as text and as the bytes that a text may stand for."""
    match value:
        case dict():
            for name, inner in value.items():
                yield name.encode()
                yield from decoded(inner)
        case list():
            for inner in value:
                yield from decoded(inner)
        case str():
            yield value.encode()
            if re.fullmatch("([0-9a-f]{2})+", value):
                yield bytes.fromhex(value)
            if re.fullmatch("[A-Za-z0-9+/]+={0,2}", value) and len(value) % 4 == 0:
                yield b64decode(value)
        case _:
            yield str(value).encode()


def has(piece: bytes, secret: bytes) -> bool:
    return secret in piece or secret.hex().encode() in piece


def test_no_answer_names_who_pays_beside_a_hold(visited: dict[str, list[bytes]], town: Town) -> None:
    paid = [town.spent.id, town.live.id, FIRST.public, SECOND.public]
    seen = 0
    for path, found in visited.items():
        for piece in found:
            names_hold = any(has(piece, secret) for secret in paid)
            seen += names_hold
            assert not (names_hold and has(piece, ALICE.public)), path
    assert seen > 20


def test_what_the_payer_has_signed_is_in_no_answer(visited: dict[str, list[bytes]], town: Town) -> None:
    for order in town.asked:
        for secret in (*order.signed.signatures, order.salt):
            assert not [path for path, found in visited.items() if any(has(piece, secret) for piece in found)]


def test_an_open_batchs_verdict_is_in_no_answer(visited: dict[str, list[bytes]], town: Town) -> None:
    verdict = town.secret.signed.command
    assert isinstance(verdict, Verdict)
    for secret in (*town.secret.signed.signatures, town.secret.salt, verdict.evidence):
        assert not [path for path, found in visited.items() if any(has(piece, secret) for piece in found)]
    shown = b"\0".join(visited[f"/v1/batches/{town.judged}"])
    hidden = b"\0".join(visited[f"/v1/batches/{town.waiting}"])
    assert has(shown, AUDITOR.public)
    assert not has(hidden, AUDITOR.public)


def test_the_search_would_find_what_is_public(visited: dict[str, list[bytes]], town: Town) -> None:
    for public in (town.spent.id, FIRST.public, ALICE.public, AUDITOR.public):
        assert any(has(piece, public) for found in visited.values() for piece in found)
