"""Holds as everybody may see them: never who pays."""

from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter
from nectar_protocol.announcement import Profile
from pydantic import BaseModel

from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import Amount, AskedDigest, Base64, ByName, Digest
from nectar_ledger.api.pages import Asked, PageView
from nectar_ledger.api.settlements import SettlementView
from nectar_ledger.store.views.holds import HoldRow, find_hold
from nectar_ledger.store.views.page import Page
from nectar_ledger.store.views.settlements import SettlementRow, list_settlements_of_hold

router = APIRouter(prefix="/v1/holds", tags=["holds"], responses=refusals(Problem.NOT_FOUND))


class HoldLineView(BaseModel):
    """How far a node has used its line: `receipt` is the newest that counts, settled by entry `receipt_index`."""

    node: Digest
    cap_units: int
    units: int
    seq: int
    final: bool
    receipt_index: int | None
    receipt: Base64 | None


class HoldView(BaseModel):
    """`account` is its escrow, with `left_ucr` in it. The entries that opened, last revised and closed it follow."""

    id: Digest
    account: int
    session: Digest
    model: Digest
    model_version: int
    policy: Digest
    weight: int
    profiles: list[Annotated[Profile, ByName()]]
    revision: int
    expires_ms: int
    state: Literal["open", "closed"]
    left_ucr: Amount
    opened_index: int
    revised_index: int
    closed_index: int | None
    lines: list[HoldLineView]


@router.get("/{id}", response_model=HoldView)
def get_hold(service: Running, id: AskedDigest) -> HoldRow:
    """A hold, open or closed."""
    with service.database.reading.begin() as connection:
        return _find(connection, id)


@router.get("/{id}/settlements", response_model=PageView[SettlementView])
def get_settlements_of_hold(service: Running, id: AskedDigest, asked: Asked) -> Page[SettlementRow]:
    """What has been paid out of a hold, by entry."""
    with service.database.reading.begin() as connection:
        return list_settlements_of_hold(connection, _find(connection, id).account, asked)


def _find(connection: sa.Connection, id: bytes) -> HoldRow:
    found = find_hold(connection, id)
    if found is None:
        raise ApiError(Problem.NOT_FOUND, "no hold of this ledger has this ID")
    return found
