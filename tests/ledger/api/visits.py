"""Whoever asks a town's ledger for everything that the public can get: each operation, with all that there is."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.tiles import new_tiles

from tests.ledger.api.served import Served
from tests.ledger.town import ALICE, AUDITOR, BOB, CAROL, FIRST, NORTH, SECOND, SOUTH, WALKER, Town

# What needs a signed request, a stream without an end, and a file that nobody has put there.
NOT_VISITED = {
    "/v1/accounts/{key}/purse", "/v1/accounts/{key}/purse/statement", "/v1/accounts/{key}/holds", "/v1/events",
    "/v1/evidence/{evidence}",
}  # fmt: skip
PEOPLE = (ALICE, BOB, CAROL, AUDITOR, NORTH, SOUTH, WALKER, FIRST, SECOND)


@dataclass(frozen=True)
class Visit:
    """An answer, a success, to an operation (by its path in OpenAPI)."""

    template: str
    path: str
    answer: httpx.Response


def visits(served: Served, town: Town) -> Iterator[Visit]:
    """Fails where an operation never answers with a success."""
    paths = served.http.get("/openapi.json").json()["paths"]
    for template in sorted(template for template, operations in paths.items() if "get" in operations):
        if template in NOT_VISITED:
            continue
        asked = [(path, served.http.get(path)) for path in addresses(served, town, template)]
        found = [Visit(template, path, answer) for path, answer in asked if answer.status_code == 200]
        assert found, f"nothing was seen of {template}"
        yield from found


def addresses(served: Served, town: Town, template: str) -> list[str]:
    """All that can be asked for by a template."""
    note = served.service.checkpoint
    assert note is not None
    size = Checkpoint.parse(note.text).size
    tiles = [tile.path.removeprefix("tile/") for tile in new_tiles(0, size)]
    bundles = [path.replace("0/", "entries/", 1) for path in tiles if path.startswith("0/")]
    holds = [hold.id.hex() for hold in (town.free, town.spent, town.live)]
    values = {
        "{key}": [person.public.hex() for person in PEOPLE],
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
