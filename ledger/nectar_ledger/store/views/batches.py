"""Batches of nodes' earnings, and their verdicts once they are closed."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from nectar_protocol.commands import Verdict, parse_command
from nectar_protocol.entry import SALT_SIZE

from nectar_ledger.core.node import BatchState
from nectar_ledger.errors import DamagedError
from nectar_ledger.store.schema import LIVE
from nectar_ledger.store.tables import accounts, batches, nodes, verdicts
from nectar_ledger.store.views.page import Page, Window


@dataclass(frozen=True, slots=True)
class BatchRow:
    """`id` is its account; `earned_ucr` all that came in, of which nothing leaves before it is closed."""

    id: int
    node: bytes
    model: bytes
    policy: bytes
    opened_ms: int
    opened_index: int
    units: int
    free_units: int
    earned_ucr: int
    state: BatchState
    closed_index: int | None


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """The entry that sealed it, the sealed part (salt and signed verdict), and what that says."""

    index: int
    sealed: bytes
    verdict: Verdict


def find_batch(connection: sa.Connection, id: int) -> BatchRow | None:
    chosen = sa.select(batches).where(batches.c.account_id == id).subquery()
    row = connection.execute(_select(chosen)).one_or_none()
    return None if row is None else _batch(row)


def list_batches_of(connection: sa.Connection, node: int, window: Window) -> Page[BatchRow]:
    page = window.select(sa.select(batches).where(batches.c.node_id == node), batches.c.account_id).subquery()
    rows = connection.execute(window.order(_select(page), page.c.account_id))
    return window.page([_batch(row) for row in rows], lambda batch: batch.id)


def list_verdicts(connection: sa.Connection, batch: int) -> list[VerdictRow]:
    """Of a batch that is closed; of an open one none, whatever was found."""
    statement = (
        sa.select(verdicts.c.idx, verdicts.c.sealed)
        .join(batches, batches.c.account_id == verdicts.c.batch_id)
        .where(verdicts.c.batch_id == batch, sa.not_(batches.info[LIVE]))
        .order_by(verdicts.c.idx)
    )
    return [VerdictRow(index, sealed, _verdict(sealed)) for index, sealed in connection.execute(statement)]


def _verdict(sealed: bytes) -> Verdict:
    command = parse_command(sealed[SALT_SIZE:]).command
    if not isinstance(command, Verdict):
        raise DamagedError(f"a {command.NAME} stands where a verdict should: restore the database from a backup")
    return command


def _select(chosen: sa.Subquery) -> sa.Select[Any]:
    """Some of `batches`, with their nodes' keys and what came into their accounts."""
    of = chosen.c
    return (
        sa.select(
            of.account_id, nodes.c.key, of.model, of.policy, of.opened_ms, accounts.c.opened_index, of.units,
            of.free_units, accounts.c.credits, of.state, of.closed_index,
        )
        .join(nodes, nodes.c.id == of.node_id)
        .join(accounts, accounts.c.id == of.account_id)
    )  # fmt: skip


def _batch(row: Any) -> BatchRow:
    id, node, model, policy, opened_ms, opened_index, units, free_units, earned_ucr, state, closed_index = row
    return BatchRow(
        id, node, model, policy, opened_ms, opened_index, units, free_units, earned_ucr, BatchState(state),
        closed_index,
    )  # fmt: skip
