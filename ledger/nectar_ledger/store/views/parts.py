"""Parts of entries, cut out of their bytes in the log: when one was written, and the hold that it is about."""

import sqlalchemy as sa
from nectar_protocol.entry import HEADER, Kind
from nectar_protocol.hold import Hold

from nectar_ledger.store.schema import log_entries

DIGEST = 32
# A hold's ID stands behind its length, its magic and the ledger's ID.
HOLD_OFFSETS = {Kind.HOLD: HEADER.size + 2 + len(Hold.MAGIC) + DIGEST, Kind.HOLD_CLOSE: HEADER.size}


def _first(count: int) -> sa.ColumnElement[bytes]:
    """Bytes of `log_entries.entry`; SQL counts from 1."""
    return sa.func.substr(log_entries.c.entry, 1, count, type_=sa.LargeBinary())


header = _first(HEADER.size)
head = _first(max(HOLD_OFFSETS.values()) + DIGEST)


def time_ms(start: bytes) -> int:
    """Of an entry that begins with `start`, its `header` or more."""
    when: int = HEADER.unpack_from(start)[3]
    return when


def hold_id(start: bytes) -> bytes | None:
    """The hold that an entry opens, revises or closes; None if it does none of these. `start` is its `head`."""
    offset = HOLD_OFFSETS.get(Kind(start[1]))
    return None if offset is None else bytes(start[offset : offset + DIGEST])
