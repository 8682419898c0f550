"""Heartbeats of nodes, and the directory made of them: the second source beside the swarm's own."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from nectar_protocol.announcement import MAX_SIZE, Announcement, NodeState, Profile
from nectar_protocol.errors import SignatureError
from nectar_protocol.identity import PublicKey, peer_id
from pydantic import BaseModel

from nectar_ledger.api.body import read_body, takes
from nectar_ledger.api.context import Running
from nectar_ledger.api.desk import AtDesk, Desk
from nectar_ledger.api.errors import Problem, refusals
from nectar_ledger.api.fields import AskedDigest, Base64, ByName, Digest
from nectar_ledger.api.limits import address_of
from nectar_ledger.api.pages import MAX_LIMIT
from nectar_ledger.directory import place


class ListedNode(BaseModel):
    """What a node announces, as JSON, and as it signed it: `announcement`, in base64. Only that is certain."""

    node: Digest
    peer_id: str
    model: Digest
    start: int
    stop: int
    profile: Annotated[Profile, ByName()]
    state: Annotated[NodeState, ByName()]
    decode_us: int
    prefill_us: int
    addresses: list[str]
    issued_ms: int
    expires_ms: int
    announcement: Base64


class ListedNodes(BaseModel):
    items: list[ListedNode]
    next: str | None


router = APIRouter(tags=["directory"])


@router.post(
    "/v1/heartbeats",
    status_code=204,
    response_class=Response,
    responses=refusals(
        Problem.MALFORMED, Problem.BAD_SIGNATURE, Problem.UNREGISTRABLE_KEY, Problem.TOO_SLOW, Problem.TOO_LARGE,
        Problem.TOO_MANY_REQUESTS, Problem.FULL,
    ),
    openapi_extra=takes(f"A signed announcement, at most {MAX_SIZE} bytes"),
)  # fmt: skip
async def post_heartbeat(request: Request, desk: AtDesk) -> Response:
    """List a node until its announcement expires. An older one than is known changes nothing."""
    body = await read_body(request, MAX_SIZE, desk.limits.body_s)
    address = address_of(request)
    await desk.verify(lambda: _list(desk, address, body))
    return Response(status_code=204)


def _list(desk: Desk, address: str, body: bytes) -> None:
    desk.take(address, None, 1)
    try:
        announcement = Announcement.unpack(body)
    except SignatureError:
        desk.fine(address, None)
        raise
    desk.service.directory.put(announcement, announcement.node in desk.service.state.nodes)


@router.get("/v1/directory")
def get_directory(
    service: Running,
    model: AskedDigest | None = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{128}$")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
) -> ListedNodes:
    """Who serves a model, or all of them; `after` is the `next` of the page before."""
    start = None if after is None else (bytes.fromhex(after[:64]), PublicKey(bytes.fromhex(after[64:])))
    page = service.directory.page(model, start, limit)
    following = b"".join(place(page[-1])).hex() if len(page) == limit else None
    return ListedNodes(items=[_view(announcement) for announcement in page], next=following)


def _view(announcement: Announcement) -> ListedNode:
    return ListedNode(
        node=announcement.node,
        peer_id=peer_id(announcement.node),
        model=announcement.model,
        start=announcement.start,
        stop=announcement.stop,
        profile=announcement.profile,
        state=announcement.state,
        decode_us=announcement.decode_us,
        prefill_us=announcement.prefill_us,
        addresses=[str(address) for address in announcement.addresses],
        issued_ms=announcement.issued_ms,
        expires_ms=announcement.expires_ms,
        announcement=announcement.pack(),
    )
