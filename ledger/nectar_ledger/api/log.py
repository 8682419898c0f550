"""The log in the formats of C2SP: its checkpoint, its tiles, and proofs for who does not want to make them.

Nothing beyond the published checkpoint is served: what no checkpoint covers can still be lost, and caches keep tiles
for ever.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import PlainTextResponse
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.note import Note
from nectar_protocol.textual import to_base64
from nectar_protocol.tiles import MAX_PATH, WIDTH, Tile

from nectar_ledger.api.body import BINARY
from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.log.witness import MAX_WITNESSES
from nectar_ledger.service import Service
from nectar_ledger.store.cosignatures import find_cosigned, read_cosignatures
from nectar_ledger.store.views.page import MAX_KEY

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
# A tile that grows is asked for under another name each time, and makes way for the full one.
FOR_A_DAY = {"Cache-Control": "public, max-age=86400, immutable"}
FOR_A_SECOND = {"Cache-Control": "public, max-age=1"}

TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
BYTES: dict[int | str, dict[str, Any]] = {200: {"content": BINARY}}

router = APIRouter(prefix="/log", tags=["log"], responses=refusals(Problem.MALFORMED, Problem.NOT_FOUND))


Witnesses = Annotated[
    int, Query(ge=0, le=MAX_WITNESSES, description="take the newest checkpoint that so many have cosigned")
]
TilePath = Annotated[
    str,
    Path(
        max_length=MAX_PATH,
        json_schema_extra={"pattern": r"^(entries|[0-7])/(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$"},
    ),
]
Size = Annotated[int, Query(ge=1, le=MAX_KEY)]


@router.get("/checkpoint", response_class=Response, responses=TEXT)
def get_checkpoint(service: Running, witnesses: Witnesses = 0) -> Response:
    """c2sp.org/tlog-checkpoint, with the lines of witnesses who have cosigned it."""
    return PlainTextResponse(_checkpoint(service, witnesses).pack(), headers=FOR_A_SECOND)


@router.get("/tile/{path:path}", response_class=Response, responses=BYTES)
def get_tile(service: Running, path: TilePath) -> Response:
    """c2sp.org/tlog-tiles: hashes under LEVEL/INDEX, bundles of entries under entries/INDEX; partial ones too."""
    tile = Tile.parse(f"tile/{path}")
    _check_covered(service, tile.index * WIDTH + tile.width << 8 * max(tile.level, 0))
    headers = FOR_EVER if tile.width == WIDTH else FOR_A_DAY
    return Response(service.log.tile(tile), headers=headers, media_type="application/octet-stream")


@router.get("/proof/{index}", response_class=Response, responses=TEXT)
def get_proof(service: Running, index: Annotated[int, Path(ge=0, lt=MAX_KEY)], witnesses: Witnesses = 0) -> Response:
    """c2sp.org/tlog-proof: that an entry is under the newest checkpoint."""
    note = _checkpoint(service, witnesses)
    if index >= Checkpoint.parse(note.text).size:
        raise ApiError(Problem.NOT_FOUND, f"entry {index} is under no such checkpoint yet: ask again in a while")
    return PlainTextResponse(service.log.proof(index, note).pack(), headers=FOR_A_SECOND)


@router.get("/consistency", response_class=Response, responses=TEXT)
def get_consistency(service: Running, old: Size, new: Size) -> Response:
    """That the log of `new` entries begins with that of `old`: a hash in base64 a line."""
    _check_covered(service, new)
    lines = [f"{to_base64(node)}\n" for node in service.log.consistency(old, new)]
    return PlainTextResponse("".join(lines), headers=FOR_EVER)


def _checkpoint(service: Service, witnesses: int) -> Note:
    """With its cosignatures. Raises ApiError if there is none that so many have cosigned."""
    with service.database.reading.begin() as connection:
        note = find_cosigned(connection, witnesses) if witnesses else service.checkpoint
        if note is None:
            raise ApiError(Problem.NOT_FOUND, "there is no such checkpoint yet: ask again in a while")
        cosignatures = read_cosignatures(connection, Checkpoint.parse(note.text).size)
    return Note(note.text, (*note.signatures, *cosignatures))


def _check_covered(service: Service, size: int) -> None:
    """Raises ApiError unless the published checkpoint covers so many entries."""
    note = service.checkpoint
    if note is None or Checkpoint.parse(note.text).size < size:
        raise ApiError(Problem.NOT_FOUND, f"no checkpoint covers {size} entries yet: ask again in a while")
