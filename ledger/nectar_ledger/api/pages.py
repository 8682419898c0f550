"""Lists, page by page."""

from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from nectar_ledger.api.errors import ApiError, Problem
from nectar_ledger.store.views.page import MAX_KEY, Window

MAX_LIMIT = 200

Item = TypeVar("Item")
Bound = Annotated[int | None, Query(ge=0, le=MAX_KEY)]


class PageView(BaseModel, Generic[Item]):
    """`next` goes on where this page ends, as `before` or, if the page was asked for by it, as `after`."""

    items: list[Item]
    next: int | None


async def get_window(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="how many items at most")] = 50,
    before: Annotated[Bound, Query(description="the newest of those before this one, newest first")] = None,
    after: Annotated[Bound, Query(description="the oldest of those after this one, oldest first")] = None,
) -> Window:
    """Raises ApiError for two bounds."""
    if before is not None and after is not None:
        raise ApiError(Problem.WRONG_PARAMETER, "give before or after, not both")
    return Window(limit, MAX_KEY if before is None else before, after)


Asked = Annotated[Window, Depends(get_window)]
