"""The versions of the policy, each with the entry that brought it."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from nectar_protocol.policy import Policy

from nectar_ledger.store.tables import policies
from nectar_ledger.store.views.page import Page, Window


@dataclass(frozen=True, slots=True)
class PolicyRow:
    index: int
    policy: Policy


def find_policy(connection: sa.Connection, id: bytes) -> PolicyRow | None:
    row = connection.execute(_select().where(policies.c.id == id)).one_or_none()
    return None if row is None else _policy(row)


def newest_policy(connection: sa.Connection) -> PolicyRow | None:
    """The one in force; None before the genesis."""
    page = list_policies(connection, Window(1))
    return page.items[0] if page.items else None


def list_policies(connection: sa.Connection, window: Window) -> Page[PolicyRow]:
    rows = connection.execute(window.select(_select(), policies.c.version))
    return window.page([_policy(row) for row in rows], lambda row: row.policy.version)


def _select() -> sa.Select[Any]:
    return sa.select(policies.c.idx, policies.c.body)


def _policy(row: Any) -> PolicyRow:
    return PolicyRow(row.idx, Policy.unpack(row.body))
