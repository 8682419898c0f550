"""Nodes that are bound to a payee, with what waits in their open batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nectar_ledger.store.schema import LIVE
from nectar_ledger.store.tables import accounts, batches, nodes
from nectar_ledger.store.views.page import Page, Window


@dataclass(frozen=True, slots=True)
class NodeRow:
    """`free_units`: served to the free class in the epoch that runs. `pending_ucr`: in `open_batches`, together."""

    id: int
    key: bytes
    payee: bytes
    bound_index: int
    free_units: int
    open_batches: int
    pending_ucr: int


def find_node(connection: sa.Connection, key: bytes) -> NodeRow | None:
    chosen = sa.select(nodes).where(nodes.c.key == key).subquery()
    found = _with_pending(connection, connection.execute(_select(chosen)).all())
    return found[0] if found else None


def list_nodes(connection: sa.Connection, window: Window) -> Page[NodeRow]:
    return _page(connection, sa.select(nodes), window)


def list_nodes_of(connection: sa.Connection, payee: int, window: Window) -> Page[NodeRow]:
    """Those whose earnings go to an account."""
    return _page(connection, sa.select(nodes).where(nodes.c.payee_id == payee), window)


def _select(chosen: sa.Subquery) -> sa.Select[Any]:
    """Some of `nodes`, with their payees' keys."""
    columns = (chosen.c.id, chosen.c.key, accounts.c.owner, chosen.c.bound_index, chosen.c.free_units)
    return sa.select(*columns).join(accounts, accounts.c.id == chosen.c.payee_id)


def _page(connection: sa.Connection, statement: sa.Select[Any], window: Window) -> Page[NodeRow]:
    page = window.select(statement, nodes.c.id).subquery()
    rows = connection.execute(window.order(_select(page), page.c.id)).all()
    return window.page(_with_pending(connection, rows), lambda node: node.id)


def _with_pending(connection: sa.Connection, rows: Sequence[Any]) -> list[NodeRow]:
    statement = (
        sa.select(batches.c.node_id, sa.func.count(), sa.func.sum(accounts.c.credits - accounts.c.debits))
        .join(accounts, accounts.c.id == batches.c.account_id)
        .where(batches.info[LIVE], batches.c.node_id.in_([row.id for row in rows]))
        .group_by(batches.c.node_id)
    )
    pending = {node: (count, int(ucr)) for node, count, ucr in connection.execute(statement)}
    return [
        NodeRow(id, key, payee, bound_index, free_units, *pending.get(id, (0, 0)))
        for id, key, payee, bound_index, free_units in rows
    ]
