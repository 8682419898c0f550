"""What all credits are together: now, and at the end of each epoch."""

from fastapi import APIRouter
from pydantic import BaseModel

from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import Amount
from nectar_ledger.api.pages import Asked, PageView
from nectar_ledger.store.views.epochs import EpochRow, SupplyRow, list_epochs, read_supply
from nectar_ledger.store.views.page import Page

router = APIRouter(prefix="/v1", tags=["epochs"])


class Sums(BaseModel):
    """emitted − burned = wallets + pool + holds + batches. Purses are inside the pool."""

    emitted_ucr: Amount
    burned_ucr: Amount
    wallets_ucr: Amount
    pool_ucr: Amount
    holds_ucr: Amount
    batches_ucr: Amount


class SupplyView(Sums):
    """The supply now, in the epoch that runs, of which `granted_ucr` is."""

    epoch: int
    epoch_started_ms: int
    granted_ucr: Amount


class EpochView(Sums):
    """The books of an epoch, as entry `index` says. `free_units`: served to the free class in it."""

    number: int
    index: int
    started_ms: int
    ended_ms: int
    free_units: int


@router.get("/supply", response_model=SupplyView, responses=refusals(Problem.NOT_FOUND))
def get_supply(service: Running) -> SupplyRow:
    with service.database.reading.begin() as connection:
        supply = read_supply(connection)
    if supply is None:
        raise ApiError(Problem.NOT_FOUND, "this ledger has no genesis yet")
    return supply


@router.get("/epochs", response_model=PageView[EpochView])
def get_epochs(service: Running, asked: Asked) -> Page[EpochRow]:
    """Epochs that have ended, by number."""
    with service.database.reading.begin() as connection:
        return list_epochs(connection, asked)
