"""Nodes, the batches in which their earnings wait, and what was settled into these."""

from dataclasses import asdict
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path
from nectar_protocol.commands import Verdict
from pydantic import BaseModel, Field

from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import Amount, AskedDigest, Base64, ByName, Digest
from nectar_ledger.api.pages import Asked, PageView
from nectar_ledger.api.records import InJson
from nectar_ledger.api.settlements import SettlementView
from nectar_ledger.core.node import BatchState
from nectar_ledger.store.views.batches import BatchRow, VerdictRow, find_batch, list_batches_of, list_verdicts
from nectar_ledger.store.views.nodes import NodeRow, find_node, list_nodes
from nectar_ledger.store.views.page import MAX_KEY, Page
from nectar_ledger.store.views.settlements import SettlementRow, list_settlements_of_batch

router = APIRouter(prefix="/v1", tags=["nodes"], responses=refusals(Problem.NOT_FOUND))

BatchNumber = Annotated[int, Path(ge=0, le=MAX_KEY)]


class NodeView(BaseModel):
    """`free_units`: served to the free class in the epoch that runs. `pending_ucr`: in its open batches, together."""

    node: Digest = Field(validation_alias="key")
    payee: Digest
    bound_index: int
    free_units: int
    open_batches: int
    pending_ucr: Amount


class BatchView(BaseModel):
    """What a node has earned with one model since `opened_ms`. It is released or burned by entry `closed_index`."""

    id: int
    node: Digest
    model: Digest
    policy: Digest
    opened_ms: int
    opened_index: int
    units: int
    free_units: int
    earned_ucr: Amount
    state: Annotated[BatchState, ByName()]
    closed_index: int | None


class VerdictView(BaseModel):
    """What entry `index` had sealed: salt and signed verdict, and what this says."""

    index: int
    sealed: Base64
    verdict: Annotated[Verdict, InJson()]

    @classmethod
    def of(cls, row: VerdictRow) -> "VerdictView":
        return cls(index=row.index, sealed=row.sealed, verdict=row.verdict)


class JudgedBatchView(BatchView):
    """`verdicts` is null while the batch is open: nobody may know them, nor how many they are."""

    verdicts: list[VerdictView] | None


@router.get("/nodes", response_model=PageView[NodeView])
def get_nodes(service: Running, asked: Asked) -> Page[NodeRow]:
    """Nodes that are bound to a payee, whether or not they serve now, in the order in which they were first bound."""
    with service.database.reading.begin() as connection:
        return list_nodes(connection, asked)


@router.get("/nodes/{key}", response_model=NodeView)
def get_node(service: Running, key: AskedDigest) -> NodeRow:
    with service.database.reading.begin() as connection:
        return _find(connection, key)


@router.get("/nodes/{key}/batches", response_model=PageView[BatchView])
def get_batches(service: Running, key: AskedDigest, asked: Asked) -> Page[BatchRow]:
    """A node's batches, open and closed."""
    with service.database.reading.begin() as connection:
        return list_batches_of(connection, _find(connection, key).id, asked)


@router.get("/batches/{id}")
def get_batch(service: Running, id: BatchNumber) -> JudgedBatchView:
    """A batch, with its verdicts once it is closed."""
    with service.database.reading.begin() as connection:
        batch = _find_batch(connection, id)
        given = None if batch.state is BatchState.OPEN else list_verdicts(connection, id)
    verdicts = None if given is None else [VerdictView.of(row) for row in given]
    return JudgedBatchView.model_validate({**asdict(batch), "verdicts": verdicts})


@router.get("/batches/{id}/settlements", response_model=PageView[SettlementView])
def get_settlements(service: Running, id: BatchNumber, asked: Asked) -> Page[SettlementRow]:
    """What was settled into a batch, by entry."""
    with service.database.reading.begin() as connection:
        return list_settlements_of_batch(connection, _find_batch(connection, id).id, asked)


def _find(connection: sa.Connection, key: bytes) -> NodeRow:
    found = find_node(connection, key)
    if found is None:
        raise ApiError(Problem.NOT_FOUND, "no node of this key is bound to a payee")
    return found


def _find_batch(connection: sa.Connection, id: int) -> BatchRow:
    found = find_batch(connection, id)
    if found is None:
        raise ApiError(Problem.NOT_FOUND, "no batch has this number")
    return found
