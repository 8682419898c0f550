"""The models that work can be paid for, each version of one with the entry that brought it."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from nectar_protocol.modelentry import ModelEntry

from nectar_ledger.store.tables import models
from nectar_ledger.store.views.page import Page, Window


@dataclass(frozen=True, slots=True)
class ModelRow:
    index: int
    entry: ModelEntry


def find_model(connection: sa.Connection, model: bytes, version: int | None = None) -> ModelRow | None:
    """The newest version, or the one asked for."""
    statement = _select().where(models.c.model == model).order_by(models.c.version.desc()).limit(1)
    if version is not None:
        statement = statement.where(models.c.version == version)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _model(row)


def list_models(connection: sa.Connection, window: Window) -> Page[ModelRow]:
    """Each model's newest version; keys are the entries that brought these."""
    newer = models.alias()
    superseded = sa.exists().where(newer.c.model == models.c.model, newer.c.version > models.c.version)
    rows = connection.execute(window.select(_select().where(~superseded), models.c.idx))
    return window.page([_model(row) for row in rows], lambda row: row.index)


def _select() -> sa.Select[Any]:
    return sa.select(models.c.idx, models.c.body)


def _model(row: Any) -> ModelRow:
    return ModelRow(row.idx, ModelEntry.unpack(row.body))
