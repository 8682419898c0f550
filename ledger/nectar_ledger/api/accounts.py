"""Accounts: what everybody may see of them, and what only their owners may."""

from dataclasses import replace
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel, Field

from nectar_ledger.api.context import Running
from nectar_ledger.api.desk import SIGNED, ReadBy
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import Amount, AskedDigest, ByName, Digest
from nectar_ledger.api.holds import HoldView
from nectar_ledger.api.nodes import NodeView
from nectar_ledger.api.pages import Asked, PageView
from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.core.reasons import Reason
from nectar_ledger.store.views.accounts import AccountRow, StatementLine, find_account, list_statement
from nectar_ledger.store.views.holds import HoldRow, list_holds_of
from nectar_ledger.store.views.nodes import NodeRow, list_nodes_of
from nectar_ledger.store.views.page import Page
from nectar_ledger.store.views.purses import PurseLine, PurseRow, find_purse, list_purse_lines

# Each may have 256 lines.
MAX_HOLDS = 50

router = APIRouter(prefix="/v1/accounts/{key}", tags=["accounts"], responses=refusals(Problem.NOT_FOUND))
OWNERS_ALONE = {**SIGNED, **refusals(Reason.NOT_AUTHORIZED)}


class AccountView(BaseModel):
    """The public balance, with all that ever came in (credits) and went out (debits)."""

    account: Digest = Field(validation_alias="key")
    balance_ucr: Amount
    credits_ucr: Amount
    debits_ucr: Amount
    opened_index: int


class OtherView(BaseModel):
    """The account on the other side: a wallet has its owner's key, a batch and the ledger's own have none."""

    kind: Annotated[AccountKind, ByName()]
    id: int
    key: Digest | None


class StatementLineView(BaseModel):
    """What entry `index` moved, negative where it went out; the balance is that after it."""

    id: int
    index: int
    time_ms: int
    code: Annotated[Code, ByName()]
    amount_ucr: Amount
    balance_ucr: Amount
    other: OtherView


class PurseView(BaseModel):
    balance_ucr: Amount
    credits_ucr: Amount
    debits_ucr: Amount
    open_holds: int


class PurseLineView(BaseModel):
    """What entry `index` moved, negative where it went out; `hold` is the one that it was for, if it was for one."""

    index: int
    time_ms: int
    code: Annotated[Code, ByName()]
    amount_ucr: Amount
    balance_ucr: Amount
    hold: Digest | None


@router.get("", response_model=AccountView)
def get_account(service: Running, key: AskedDigest) -> AccountRow:
    """An account's public balance. An account is there once the log has named its key."""
    with service.database.reading.begin() as connection:
        return _find(connection, key)


@router.get("/statement", response_model=PageView[StatementLineView])
def get_statement(service: Running, key: AskedDigest, asked: Asked) -> Page[StatementLine]:
    """An account's public lines."""
    with service.database.reading.begin() as connection:
        return list_statement(connection, _find(connection, key), asked)


@router.get("/nodes", response_model=PageView[NodeView])
def get_nodes_of(service: Running, key: AskedDigest, asked: Asked) -> Page[NodeRow]:
    """Nodes whose earnings are released to an account."""
    with service.database.reading.begin() as connection:
        return list_nodes_of(connection, _find(connection, key).id, asked)


@router.get("/purse", response_model=PurseView, responses=OWNERS_ALONE)
def get_purse(service: Running, key: AskedDigest, reader: ReadBy) -> PurseRow:
    """For the account's owner alone: the purse's balance."""
    with service.database.reading.begin() as connection:
        return find_purse(connection, _own(connection, key, reader).id)


@router.get("/purse/statement", response_model=PageView[PurseLineView], responses=OWNERS_ALONE)
def get_purse_statement(service: Running, key: AskedDigest, reader: ReadBy, asked: Asked) -> Page[PurseLine]:
    """For the account's owner alone: what moved the purse."""
    with service.database.reading.begin() as connection:
        return list_purse_lines(connection, _own(connection, key, reader).id, asked)


@router.get("/holds", response_model=PageView[HoldView], responses=OWNERS_ALONE)
def get_holds_of(service: Running, key: AskedDigest, reader: ReadBy, asked: Asked) -> Page[HoldRow]:
    """For the account's owner alone: the holds that its purse has paid for, at most 50 a page."""
    window = replace(asked, limit=min(asked.limit, MAX_HOLDS))
    with service.database.reading.begin() as connection:
        return list_holds_of(connection, _own(connection, key, reader).id, window)


def _find(connection: sa.Connection, key: bytes) -> AccountRow:
    found = find_account(connection, key)
    if found is None:
        raise ApiError(Problem.NOT_FOUND, "the log has not named this key yet, so it has no account")
    return found


def _own(connection: sa.Connection, key: bytes, reader: bytes) -> AccountRow:
    if key != reader:
        raise ApiError(Reason.NOT_AUTHORIZED, "a purse is shown to its account's owner alone: sign with that key")
    return _find(connection, key)
