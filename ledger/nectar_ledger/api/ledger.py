"""The ledger of itself: its keys, its policy, and the models that work can be paid for."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.note import Kind, NoteKey
from nectar_protocol.policy import Policy
from pydantic import BaseModel

from nectar_ledger.api.context import Running
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import AskedDigest, Base64, Digest
from nectar_ledger.api.pages import Asked, PageView
from nectar_ledger.api.records import InJson
from nectar_ledger.store.views.ledger import read_ledger
from nectar_ledger.store.views.models import ModelRow, find_model, list_models
from nectar_ledger.store.views.policies import PolicyRow, find_policy, list_policies, newest_policy

VERSION = version("nectar-swarm")
MAX_VERSION = 2**32 - 1

router = APIRouter(prefix="/v1", tags=["ledger"])


class LedgerView(BaseModel):
    """`ledger` is the hash of the genesis, which every signed object names; `log_key` a vkey as C2SP writes it;
    `policy` the one in force. The log has `size` entries, the newest of `time_ms`. `version` is the program's.
    """

    ledger: Digest
    network: str
    log_key: str
    holds_key: Digest
    policy: Digest
    size: int
    time_ms: int
    version: str


class PolicyView(BaseModel):
    """A version of the policy, the entry that brought it, and its bytes, whose SHA-256 is `id`."""

    id: Digest
    index: int
    policy: Annotated[Policy, InJson()]
    packed: Base64

    @classmethod
    def of(cls, row: PolicyRow) -> "PolicyView":
        return cls(id=row.policy.id, index=row.index, policy=row.policy, packed=row.policy.pack())


class ModelView(BaseModel):
    """A version of what a model's blocks cost, the entry that brought it, and its bytes, whose SHA-256 is `id`."""

    id: Digest
    index: int
    entry: Annotated[ModelEntry, InJson()]
    packed: Base64

    @classmethod
    def of(cls, row: ModelRow) -> "ModelView":
        return cls(id=row.entry.id, index=row.index, entry=row.entry, packed=row.entry.pack())


@router.get("/ledger", responses=refusals(Problem.NOT_FOUND))
def get_ledger(service: Running) -> LedgerView:
    with service.database.reading.begin() as connection:
        ledger, policy = read_ledger(connection), newest_policy(connection)
    if ledger is None or policy is None:
        raise ApiError(Problem.NOT_FOUND, "this ledger has no genesis yet")
    return LedgerView(
        ledger=ledger.id, network=ledger.network, log_key=str(NoteKey(ledger.network, Kind.NOTE, ledger.log_key)),
        holds_key=ledger.holds_key, policy=policy.policy.id, size=ledger.size, time_ms=ledger.time_ms, version=VERSION,
    )  # fmt: skip


@router.get("/policy", responses=refusals(Problem.NOT_FOUND))
def get_policy(service: Running) -> PolicyView:
    """The policy in force."""
    with service.database.reading.begin() as connection:
        return _policy(newest_policy(connection))


@router.get("/policies")
def get_policies(service: Running, asked: Asked) -> PageView[PolicyView]:
    """All there were, by version."""
    with service.database.reading.begin() as connection:
        page = list_policies(connection, asked)
    return PageView(items=[PolicyView.of(row) for row in page.items], next=page.next)


@router.get("/policies/{id}", responses=refusals(Problem.NOT_FOUND))
def get_policy_by_id(service: Running, id: AskedDigest) -> PolicyView:
    with service.database.reading.begin() as connection:
        return _policy(find_policy(connection, id))


@router.get("/models")
def get_models(service: Running, asked: Asked) -> PageView[ModelView]:
    """Each model's newest version, by the entry that brought it."""
    with service.database.reading.begin() as connection:
        page = list_models(connection, asked)
    return PageView(items=[ModelView.of(row) for row in page.items], next=page.next)


@router.get("/models/{model}", responses=refusals(Problem.NOT_FOUND))
def get_model(
    service: Running, model: AskedDigest, version: Annotated[int | None, Query(ge=1, le=MAX_VERSION)] = None
) -> ModelView:
    """The newest version, or the one asked for."""
    with service.database.reading.begin() as connection:
        row = find_model(connection, model, version)
    if row is None:
        raise ApiError(Problem.NOT_FOUND, "the ledger has no entry for this model, or not in this version")
    return ModelView.of(row)


def _policy(row: PolicyRow | None) -> PolicyView:
    if row is None:
        raise ApiError(Problem.NOT_FOUND, "the ledger has no policy of this ID")
    return PolicyView.of(row)
