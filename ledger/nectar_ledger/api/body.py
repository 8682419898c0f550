"""Bodies that are bytes: read within a size and a time, and described in OpenAPI."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from nectar_ledger.api.errors import ApiError, Problem

BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def takes(description: str) -> dict[str, Any]:
    """The `openapi_extra` of an operation whose body is bytes."""
    return {"requestBody": {"description": description, "content": BINARY, "required": True}}


async def stream_body(request: Request, max_bytes: int, within_s: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ApiError over `max_bytes`, or if it has not come after `within_s`."""
    too_large = ApiError(Problem.TOO_LARGE, f"the body is too large: {max_bytes} bytes are read here")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    count = 0
    chunks = request.stream()
    deadline_s = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            async with asyncio.timeout_at(deadline_s):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise ApiError(Problem.TOO_SLOW, f"the body did not come within {within_s:g} s: send it again") from None
        if chunk is None:
            return
        count += len(chunk)
        if count > max_bytes:
            raise too_large
        if chunk:
            yield chunk


async def read_body(request: Request, max_bytes: int, within_s: float) -> bytes:
    """The whole body. Raises ApiError as `stream_body`."""
    return b"".join([chunk async for chunk in stream_body(request, max_bytes, within_s)])
