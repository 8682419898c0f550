"""Holds as everybody may see them: never who pays. Which holds an account opened is private."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from nectar_protocol.announcement import Profile
from nectar_protocol.receipt import SIZE as RECEIPT_SIZE

from nectar_ledger.store.schema import log_entries
from nectar_ledger.store.tables import accounts, hold_lines, holds, nodes
from nectar_ledger.store.views.page import Page, Window


@dataclass(frozen=True, slots=True)
class HoldLineRow:
    """How far a node's line has been used; `receipt` is its newest, 344 bytes, settled by entry `receipt_index`."""

    node: bytes
    cap_units: int
    units: int
    seq: int
    final: bool
    receipt_index: int | None
    receipt: bytes | None


@dataclass(frozen=True, slots=True)
class HoldRow:
    """`account` is its escrow, with `left_ucr` in it; `closed_index` is None while it is open."""

    account: int
    id: bytes
    session: bytes
    model: bytes
    model_version: int
    policy: bytes
    weight: int
    profiles: tuple[Profile, ...]
    revision: int
    expires_ms: int
    opened_index: int
    revised_index: int
    closed_index: int | None
    left_ucr: int
    lines: tuple[HoldLineRow, ...]

    @property
    def state(self) -> str:
        return "open" if self.closed_index is None else "closed"


def find_hold(connection: sa.Connection, id: bytes) -> HoldRow | None:
    chosen = sa.select(holds).where(holds.c.id == id).subquery()
    found = _with_lines(connection, connection.execute(_select(chosen)).all())
    return found[0] if found else None


def list_holds_of(connection: sa.Connection, account: int, window: Window) -> Page[HoldRow]:
    """PRIVATE, for the account's owner alone: what its purse has paid for. Keys are the holds' accounts."""
    page = window.select(sa.select(holds).where(holds.c.purse_id == account), holds.c.account_id).subquery()
    statement = window.order(_select(page), page.c.account_id)
    found = _with_lines(connection, connection.execute(statement).all())
    return window.page(found, lambda hold: hold.account)


def _select(chosen: sa.Subquery) -> sa.Select[Any]:
    """Some of `holds`, with what is left in their accounts."""
    of = chosen.c
    return sa.select(
        of.account_id, of.id, of.session, of.model, of.model_version, of.policy, of.weight, of.profiles, of.revision,
        of.expires_ms, of.opened_index, of.revised_index, of.closed_index, accounts.c.credits - accounts.c.debits,
    ).join(accounts, accounts.c.id == of.account_id)  # fmt: skip


def _with_lines(connection: sa.Connection, rows: Sequence[Any]) -> list[HoldRow]:
    lines: dict[int, list[HoldLineRow]] = defaultdict(list)
    statement = (
        sa.select(
            hold_lines.c.hold_id, nodes.c.key, hold_lines.c.cap_units, hold_lines.c.units, hold_lines.c.seq,
            hold_lines.c.final, hold_lines.c.receipt_index, log_entries.c.entry,
        )
        .join(nodes, nodes.c.id == hold_lines.c.node_id)
        .outerjoin(log_entries, log_entries.c.idx == hold_lines.c.receipt_index)
        .where(hold_lines.c.hold_id.in_([row.account_id for row in rows]))
        .order_by(hold_lines.c.hold_id, hold_lines.c.node_id)
    )  # fmt: skip
    for hold, node, cap, units, seq, final, index, entry in connection.execute(statement):
        receipt = None if entry is None else entry[-RECEIPT_SIZE:]
        lines[hold].append(HoldLineRow(node, cap, units, seq, final, index, receipt))
    return [_hold(row, tuple(lines[row.account_id])) for row in rows]


def _hold(row: Any, lines: tuple[HoldLineRow, ...]) -> HoldRow:
    (
        account, id, session, model, version, policy, weight, bits, revision, expires_ms, opened, revised, closed,
        left_ucr,
    ) = row  # fmt: skip
    profiles = tuple(profile for profile in Profile if bits >> profile & 1)
    return HoldRow(
        account, id, session, model, version, policy, weight, profiles, revision, expires_ms, opened, revised, closed,
        left_ucr, lines,
    )  # fmt: skip
