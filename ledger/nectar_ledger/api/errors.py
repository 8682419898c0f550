"""What goes wrong, as the API says it: a status, a code for programs, words for people that say what to do."""

from collections.abc import Mapping
from enum import StrEnum
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from nectar_protocol.errors import IdentityError, ProtocolError, SignatureError
from pydantic import BaseModel, ConfigDict
from sqlalchemy import exc
from starlette.exceptions import HTTPException

from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.errors import FullError, NotFoundError, NotRecordedError, StoppedError

RETRY_AFTER_S = 1.0


class Problem(StrEnum):
    """What the API itself refuses, before the ledger's core has a say. `Reason` has what the core refuses."""

    MALFORMED = "malformed"
    WRONG_PARAMETER = "wrong-parameter"
    BAD_SIGNATURE = "bad-signature"
    UNREGISTRABLE_KEY = "unregistrable-key"
    UNSIGNED_REQUEST = "unsigned-request"
    BAD_REQUEST_SIGNATURE = "bad-request-signature"
    CLOCK_SKEW = "clock-skew"
    REPLAYED_REQUEST = "replayed-request"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    TOO_SLOW = "too-slow"
    HOLD_CLOSED = "hold-closed"
    TOO_LARGE = "too-large"
    TOO_MANY_REQUESTS = "too-many-requests"
    INTERNAL_ERROR = "internal-error"
    FULL = "full"
    NOT_RECORDED = "not-recorded"
    STOPPED = "stopped"
    UNAVAILABLE = "unavailable"


Code = Problem | Reason

STATUS: Mapping[Code, int] = {
    Problem.MALFORMED: 400,
    Problem.BAD_SIGNATURE: 400,
    Problem.UNREGISTRABLE_KEY: 400,
    Reason.FOREIGN_LEDGER: 400,
    Reason.COMMAND_EXPIRED: 400,
    Reason.WRONG_EXPIRY: 400,
    Reason.WRONG_AMOUNT: 400,
    Reason.WRONG_CAP: 400,
    Reason.WRONG_SESSION: 400,
    Reason.WRONG_PROFILE: 400,
    Reason.WRONG_TOTALS: 400,
    Reason.WRONG_UNITS: 400,
    Reason.OVER_CAP: 400,
    Problem.UNSIGNED_REQUEST: 401,
    Problem.BAD_REQUEST_SIGNATURE: 401,
    Problem.CLOCK_SKEW: 401,
    Problem.REPLAYED_REQUEST: 401,
    Reason.INSUFFICIENT_FUNDS: 402,
    Reason.NOT_AUTHORIZED: 403,
    Problem.NOT_FOUND: 404,
    Reason.UNKNOWN_POLICY: 404,
    Reason.UNKNOWN_MODEL: 404,
    Reason.UNKNOWN_NODE: 404,
    Reason.UNKNOWN_HOLD: 404,
    Reason.UNKNOWN_BATCH: 404,
    Reason.NO_LINE: 404,
    Problem.METHOD_NOT_ALLOWED: 405,
    Problem.TOO_SLOW: 408,
    Problem.HOLD_CLOSED: 409,
    Reason.CONFLICT: 409,
    Reason.WRONG_VERSION: 409,
    Reason.WRONG_REVISION: 409,
    Reason.TOO_MANY_HOLDS: 409,
    Reason.ALREADY_BOUND: 409,
    Reason.BATCH_FULL: 409,
    Reason.LINE_FINAL: 409,
    Reason.HOLD_EXPIRED: 409,
    Problem.TOO_LARGE: 413,
    Problem.WRONG_PARAMETER: 422,
    Problem.TOO_MANY_REQUESTS: 429,
    Problem.INTERNAL_ERROR: 500,
    Problem.FULL: 503,
    Problem.NOT_RECORDED: 503,
    Problem.STOPPED: 503,
    Problem.UNAVAILABLE: 503,
}


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(strict=True, extra="forbid")

    error: Problem | Reason
    message: str


class ApiError(Exception):
    """An answer that is not a success. `retry_after_s` goes with 429 and 503."""

    def __init__(self, code: Code, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s


# What any operation may answer.
COMMON = (Problem.WRONG_PARAMETER, Problem.TOO_MANY_REQUESTS, Problem.INTERNAL_ERROR, Problem.UNAVAILABLE)


def refusals(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that answers these: OpenAPI lists them by status."""
    by_status: dict[int | str, list[Code]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(code)
    for code in COMMON:
        # An operation's own list of a status takes the place of the application's.
        if STATUS[code] in by_status and code not in codes:
            by_status[STATUS[code]].append(code)
    return {
        status: {"model": ErrorBody, "description": ", ".join(f"`{code}`" for code in by_status[status])}
        for status in by_status
    }


def error_response(error: ApiError) -> JSONResponse:
    status = STATUS[error.code]
    headers = {}
    if status in (429, 503):
        # In whole seconds, as RFC 9110 has it.
        headers["Retry-After"] = str(ceil(error.retry_after_s or RETRY_AFTER_S))
    if error.code is Problem.TOO_SLOW:
        # The rest of its body is not waited for.
        headers["Connection"] = "close"
    return JSONResponse({"error": error.code, "message": error.message}, status, headers)


def as_api_error(error: Exception) -> ApiError:
    """What the API says of an error of the ledger or of the protocol."""
    match error:
        case ApiError():
            return error
        case Refused():
            return ApiError(error.reason, error.message)
        case FullError():
            return ApiError(Problem.FULL, str(error), error.retry_after_s)
        case NotRecordedError():
            return ApiError(Problem.NOT_RECORDED, str(error))
        case StoppedError():
            return ApiError(Problem.STOPPED, str(error))
        case NotFoundError():
            return ApiError(Problem.NOT_FOUND, str(error))
        case SignatureError():
            return ApiError(Problem.BAD_SIGNATURE, str(error))
        case IdentityError():
            return ApiError(Problem.UNREGISTRABLE_KEY, str(error))
        case ProtocolError():
            return ApiError(Problem.MALFORMED, str(error))
        case exc.OperationalError() | exc.TimeoutError():
            return ApiError(Problem.UNAVAILABLE, "the ledger's database does not answer: try again later")
    return ApiError(Problem.INTERNAL_ERROR, "the ledger has a fault, which its operator can read in its log")


def handle_errors(app: FastAPI) -> None:
    """Have every error answered with an `ErrorBody`."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return error_response(as_api_error(error))

    async def wrong_parameter(request: Request, error: Exception) -> JSONResponse:
        return error_response(ApiError(Problem.WRONG_PARAMETER, _first_fault(error)))

    async def not_routed(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        codes = {404: Problem.NOT_FOUND, 405: Problem.METHOD_NOT_ALLOWED, 413: Problem.TOO_LARGE}
        code = codes.get(error.status_code, Problem.MALFORMED)
        response = error_response(ApiError(code, f"{request.method} {request.url.path[:200]}: {error.detail}"))
        response.headers.update(error.headers or {})
        return response

    for kind in (
        ApiError, Refused, FullError, NotRecordedError, StoppedError, NotFoundError, ProtocolError,
        exc.OperationalError, exc.TimeoutError,
    ):  # fmt: skip
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, wrong_parameter)
    app.add_exception_handler(HTTPException, not_routed)
    app.add_exception_handler(Exception, known)


def _first_fault(error: Exception) -> str:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    if not faults:
        return "a parameter is wrong"
    where = " ".join(str(part) for part in faults[0]["loc"])
    return f"{where}: {faults[0]['msg']}"[:300]
