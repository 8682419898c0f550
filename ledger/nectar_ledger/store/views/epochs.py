"""The supply as it is, and the books of the epochs that have ended."""

from dataclasses import dataclass

import sqlalchemy as sa

from nectar_ledger.core.state import BURNED, EMISSION, POOL
from nectar_ledger.store.schema import LIVE
from nectar_ledger.store.tables import accounts, batches, books, epochs, holds
from nectar_ledger.store.views.page import Page, Window


@dataclass(frozen=True, slots=True)
class EpochRow:
    """As its entry says: emitted − burned = wallets + pool + holds + batches. `free_units` are those of the epoch."""

    number: int
    index: int
    started_ms: int
    ended_ms: int
    free_units: int
    emitted_ucr: int
    burned_ucr: int
    wallets_ucr: int
    pool_ucr: int
    holds_ucr: int
    batches_ucr: int


@dataclass(frozen=True, slots=True)
class SupplyRow:
    """Now, in the epoch that runs; `granted_ucr` is of this epoch.

    Wallets have what the others have not, since transfers make nothing; each epoch's entry counts them one by one.
    """

    epoch: int
    epoch_started_ms: int
    granted_ucr: int
    emitted_ucr: int
    burned_ucr: int
    wallets_ucr: int
    pool_ucr: int
    holds_ucr: int
    batches_ucr: int


def list_epochs(connection: sa.Connection, window: Window) -> Page[EpochRow]:
    rows = connection.execute(window.select(sa.select(epochs), epochs.c.number))
    return window.page([EpochRow(*row) for row in rows], lambda epoch: epoch.number)


def read_supply(connection: sa.Connection) -> SupplyRow | None:
    """None before the genesis."""
    running = connection.execute(sa.select(books.c.epoch, books.c.epoch_started_ms, books.c.granted_ucr)).one_or_none()
    if running is None:
        return None
    balance = accounts.c.credits - accounts.c.debits
    own = sa.select(accounts.c.id, balance).where(accounts.c.id.in_((EMISSION, BURNED, POOL)))
    ucr: dict[int, int] = {id: balance_ucr for id, balance_ucr in connection.execute(own)}
    emitted_ucr, burned_ucr, pool_ucr = -ucr[EMISSION], ucr[BURNED], ucr[POOL]
    holds_ucr, batches_ucr = _open_ucr(connection, holds), _open_ucr(connection, batches)
    wallets_ucr = emitted_ucr - burned_ucr - pool_ucr - holds_ucr - batches_ucr
    return SupplyRow(*running, emitted_ucr, burned_ucr, wallets_ucr, pool_ucr, holds_ucr, batches_ucr)


def _open_ucr(connection: sa.Connection, table: sa.Table) -> int:
    """What is in the accounts of those that are open, each looked up by itself: they are few among all accounts."""
    balance = sa.select(accounts.c.credits - accounts.c.debits).where(accounts.c.id == table.c.account_id)
    statement = sa.select(sa.func.sum(balance.scalar_subquery())).where(table.info[LIVE])
    return int(connection.execute(statement).scalar() or 0)
