"""Receipts, in batches of a node or of a session: checked, verified, recorded; answered after the commit."""

import json
from collections import Counter
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from nectar_protocol.receipt import SIZE
from pydantic import BaseModel, Field

from nectar_ledger.api.auth import Sender
from nectar_ledger.api.body import read_body, takes
from nectar_ledger.api.desk import SIGNED, AtDesk, Desk, SentBy
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.limits import address_of
from nectar_ledger.api.posting import MAX_BYTES, MAX_RECEIPTS, Posting
from nectar_ledger.core.orders import Settle
from nectar_ledger.core.reasons import Reason
from nectar_ledger.errors import NotRecordedError


class SettledResult(BaseModel):
    """`index`: of the entry that it is in."""

    status: Literal["settled"]
    index: int


class SupersededResult(BaseModel):
    """The line has had this receipt or a newer one: nothing is left to do."""

    status: Literal["superseded"]


class RefusedResult(BaseModel):
    """Sending it again as it is will not help."""

    status: Literal["refused"]
    error: Problem | Reason
    message: str


class Results(BaseModel):
    """What became of each receipt, in the order in which they were posted."""

    results: list[Annotated[SettledResult | SupersededResult | RefusedResult, Field(discriminator="status")]]


router = APIRouter(tags=["receipts"])


@router.post(
    "/v1/receipts",
    response_model=Results,
    responses=SIGNED
    | refusals(
        Problem.MALFORMED, Problem.BAD_SIGNATURE, Problem.TOO_SLOW, Problem.TOO_LARGE, Problem.TOO_MANY_REQUESTS,
        Problem.FULL, Problem.NOT_RECORDED, Problem.STOPPED,
    ),
    openapi_extra=takes(f"1 to {MAX_RECEIPTS} signed receipts of {SIZE} bytes, one behind the other"),
)  # fmt: skip
async def post_receipts(request: Request, desk: AtDesk, sender: SentBy) -> Response:
    """Settle receipts of the sender, a node or a session. Sending them again changes nothing."""
    body = await read_body(request, MAX_BYTES, desk.limits.body_s)
    address = address_of(request)
    posting, chosen = await desk.verify(lambda: _checked(desk, address, sender, body), 2 * (len(body) // SIZE))
    await _dispel_doubts(desk, posting)
    outcomes = await desk.record([Settle(posting.parsed[position]) for position in chosen]) if chosen else []
    posting.conclude(chosen, outcomes)
    _count(desk, posting)
    return Response(json.dumps({"results": posting.results}), media_type="application/json")


def _checked(desk: Desk, address: str, sender: Sender, body: bytes) -> tuple[Posting, list[int]]:
    """A batch, and the positions of what is to be recorded. Raises ApiError."""
    sender.check_body(body)
    posting = Posting.cut(sender.key, body)
    posting.examine(desk.service)
    if not posting.lines:
        return posting, []
    desk.take(address, sender.key, 2 * len(posting.lines))
    try:
        return posting, posting.verify(lambda: desk.fine(address, sender.key))
    except ApiError:
        desk.fine(address, sender.key)
        raise


async def _dispel_doubts(desk: Desk, posting: Posting) -> None:
    """Raises NotRecordedError for a line that was in the midst of a commit, which failed."""
    if posting.doubtful:
        await desk.verify(lambda: posting.look_up(desk.service))
    if posting.doubtful:
        # What was being committed is committed, or not, before this is answered.
        await desk.record([])
        await desk.verify(lambda: posting.look_up(desk.service))
    if posting.doubtful:
        raise NotRecordedError("a receipt of the batch, sent before, could not be recorded: send it again")


def _count(desk: Desk, posting: Posting) -> None:
    results = [result for result in posting.results if result is not None]
    for status, count in Counter(result["status"] for result in results).items():
        desk.metrics.receipts.labels(status).inc(count)
    for error, count in Counter(result["error"] for result in results if "error" in result).items():
        desk.metrics.refused.labels(error).inc(count)
