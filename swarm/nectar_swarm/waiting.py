"""Waiting for whichever of several things comes first."""

import asyncio
from collections.abc import Awaitable
from typing import Any


async def first_of(*waiting: Awaitable[Any], timeout_s: float | None = None) -> None:
    """Return when one of these is done or the time is over; those that are not tasks already are cancelled then."""
    futures = [asyncio.ensure_future(one) for one in waiting]
    try:
        await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future, one in zip(futures, waiting, strict=True):
            if future is not one:
                future.cancel()
