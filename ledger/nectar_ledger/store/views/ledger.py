"""The ledger itself: who it is, and how long its log is."""

from dataclasses import dataclass

import sqlalchemy as sa
from nectar_protocol.identity import PublicKey

from nectar_ledger.store.schema import log_head
from nectar_ledger.store.tables import books


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """`id` is the hash of the genesis, `time_ms` is of the newest entry."""

    id: bytes
    network: str
    holds_key: PublicKey
    log_key: PublicKey
    size: int
    time_ms: int


def read_ledger(connection: sa.Connection) -> LedgerRow | None:
    """None before the genesis."""
    columns = (books.c.ledger, books.c.network, books.c.holds_key, books.c.log_key, log_head.c.size, log_head.c.time_ms)
    row = connection.execute(sa.select(*columns).join(log_head, log_head.c.id == books.c.id)).one_or_none()
    return None if row is None else LedgerRow(*row)
