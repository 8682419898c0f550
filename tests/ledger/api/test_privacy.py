"""What is private is in no answer that everybody can get: who pays for a hold, and an open batch's verdicts."""

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from nectar_protocol.commands import Verdict
from nectar_protocol.tiles import unpack_bundle

from tests.ledger.api import served as serving
from tests.ledger.api.served import Served
from tests.ledger.api.visits import Visit, visits
from tests.ledger.town import ALICE, AUDITOR, FIRST, SECOND, TOWN_POLICY, Town
from tests.ledger.world import World


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
    return {visit.path: pieces(visit) for visit in visits(served, town)}


def pieces(visit: Visit) -> list[bytes]:
    """Items of a list and entries of a bundle are about different things; anything else is about one."""
    if visit.path.startswith("/log/tile/entries/"):
        return unpack_bundle(visit.answer.content, int(visit.path.rpartition("/")[2]))
    if not visit.answer.headers.get("content-type", "").startswith("application/json"):
        return [visit.answer.content]
    body = visit.answer.json()
    items = body["items"] if isinstance(body, dict) and isinstance(body.get("items"), list) else [body]
    return [b"\0".join([visit.path.encode(), *decoded(item)]) for item in items]


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
