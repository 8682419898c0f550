"""Evidence: what an auditor's verdict was made from, for anybody with the weights to run again."""

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from nectar_protocol.commands import KeyPurpose
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from nectar_ledger.api.body import BINARY, stream_body, takes
from nectar_ledger.api.context import Running
from nectar_ledger.api.desk import SIGNED, AtDesk, SentBy
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import AskedDigest, Digest
from nectar_ledger.core.reasons import Reason


class KeptEvidence(BaseModel):
    """`evidence`: its SHA-256 in hex, by which a verdict names it."""

    evidence: Digest


router = APIRouter(tags=["evidence"])


@router.post(
    "/v1/evidence",
    responses=SIGNED
    | refusals(
        Reason.NOT_AUTHORIZED, Problem.TOO_SLOW, Problem.TOO_LARGE, Problem.TOO_MANY_REQUESTS, Problem.FULL,
        Problem.STOPPED,
    ),
    openapi_extra=takes("What a verdict was made from"),
)  # fmt: skip
async def post_evidence(request: Request, desk: AtDesk, sender: SentBy) -> KeptEvidence:
    """Keep a file for as long as the policy says. The sender is an auditor."""
    if not desk.service.state.is_active(sender.key, KeyPurpose.AUDITOR):
        raise ApiError(Reason.NOT_AUTHORIZED, "evidence is kept for auditors: have the operator set your key")
    with desk.service.evidence.draft() as draft:
        async for chunk in stream_body(request, desk.limits.evidence_bytes, desk.limits.evidence_s):
            await run_in_threadpool(draft.write, chunk)
        sender.check_sha256(draft.sha256)
        await run_in_threadpool(draft.keep)
        return KeptEvidence(evidence=draft.sha256)


@router.get(
    "/v1/evidence/{evidence}",
    response_class=FileResponse,
    responses=refusals(Problem.NOT_FOUND) | {200: {"content": BINARY}},
)
def get_evidence(service: Running, evidence: AskedDigest) -> FileResponse:
    """The file of this SHA-256."""
    path = service.evidence.find(evidence)
    if path is None:
        raise ApiError(Problem.NOT_FOUND, "no such evidence is kept here: it has expired, or was never posted")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
