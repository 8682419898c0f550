"""Entries of the log, one by one, for people to read; programs take them from the log's tiles, with proofs."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from nectar_protocol.entry import Kind, parse_entry
from pydantic import BaseModel, Field

from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import Problem, refusals
from nectar_ledger.api.fields import Base64, ByName
from nectar_ledger.api.records import view
from nectar_ledger.store.views.page import MAX_KEY

router = APIRouter(prefix="/v1/entries", tags=["log"], responses=refusals(Problem.NOT_FOUND))


class EntryView(BaseModel):
    """`entry` is what the log has, `body` what it says: bytes as hex, amounts as decimal strings of µcr."""

    index: int
    kind: Annotated[Kind, ByName()]
    time_ms: int
    entry: Base64
    body: dict[str, Any] = Field(description="The fields of its kind; a signed command has its name as `command`.")


@router.get("/{index}")
def get_entry(service: Running, index: Annotated[int, Path(ge=0, lt=MAX_KEY)]) -> EntryView:
    """An entry. What is sealed is not in it."""
    data = service.log.entry(index)
    entry = parse_entry(data)
    return EntryView(index=index, kind=entry.kind, time_ms=entry.time_ms, entry=data, body=view(entry.body))
