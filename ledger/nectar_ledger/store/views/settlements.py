"""Settlements: what each receipt that counted has moved, by batch or by hold."""

from dataclasses import dataclass

import sqlalchemy as sa

from nectar_ledger.store.schema import log_entries
from nectar_ledger.store.tables import holds, nodes, settlements
from nectar_ledger.store.views.page import Page, Window
from nectar_ledger.store.views.parts import header, time_ms


@dataclass(frozen=True, slots=True)
class SettlementRow:
    """`units` are those that it added; the receipt itself stands in entry `index`."""

    index: int
    time_ms: int
    hold: bytes
    node: bytes
    batch: int
    units: int
    paid_ucr: int
    fee_ucr: int


def list_settlements_of_batch(connection: sa.Connection, batch: int, window: Window) -> Page[SettlementRow]:
    return _page(connection, settlements.c.batch_id == batch, window)


def list_settlements_of_hold(connection: sa.Connection, account: int, window: Window) -> Page[SettlementRow]:
    """By the hold's account."""
    return _page(connection, settlements.c.hold_id == account, window)


def _page(connection: sa.Connection, where: sa.ColumnElement[bool], window: Window) -> Page[SettlementRow]:
    page = window.select(sa.select(settlements).where(where), settlements.c.idx).subquery()
    statement = (
        sa.select(
            page.c.idx, header, holds.c.id, nodes.c.key, page.c.batch_id, page.c.units, page.c.paid_ucr, page.c.fee_ucr
        )
        .join(log_entries, log_entries.c.idx == page.c.idx)
        .join(holds, holds.c.account_id == page.c.hold_id)
        .join(nodes, nodes.c.id == page.c.node_id)
    )  # fmt: skip
    rows = connection.execute(window.order(statement, page.c.idx))
    found = [SettlementRow(index, time_ms(start), *fields) for index, start, *fields in rows]
    return window.page(found, lambda settlement: settlement.index)
