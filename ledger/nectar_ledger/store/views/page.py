"""A page of rows by their key: it begins where another one ended, so that the last costs no more than the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

MAX_KEY = 2**63 - 1

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """`next` is where the following page begins, None at the end."""

    items: tuple[Item, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` rows: the oldest of those after `after`, if it is given; else the newest of those before
    `before`. Neither bound is among them.
    """

    limit: int
    before: int = MAX_KEY
    after: int | None = None

    def select(self, statement: sa.Select[Any], key: sa.ColumnElement[int]) -> sa.Select[Any]:
        """The rows of the page, in order, and one more if there is one.

        Join what belongs to them to `subquery()` of this, and `order` that: a planner that is free to join first may
        go through a whole table in the key's order.
        """
        bound = key < self.before if self.after is None else key > self.after
        return self.order(statement.where(bound), key).limit(self.limit + 1)

    def order(self, statement: sa.Select[Any], key: sa.ColumnElement[int]) -> sa.Select[Any]:
        return statement.order_by(key.desc() if self.after is None else key)

    def page(self, items: Sequence[Item], key: Callable[[Item], int]) -> Page[Item]:
        """Of what `select` found."""
        kept = tuple(items[: self.limit])
        return Page(kept, key(kept[-1]) if len(items) > self.limit else None)
