"""A log as a database keeps it: nothing may be missing in it, and nothing may stand beside it."""

from collections.abc import Iterator

import sqlalchemy as sa
from nectar_protocol.entry import HEADER, Kind
from nectar_protocol.merkle import Frontier
from nectar_protocol.tiles import Tile

from nectar_ledger.audit.report import Report
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.scan import Part, find_strays, find_tile, read_parts
from nectar_ledger.store.schema import log_head

SEALED_KINDS = (bytes([Kind.HOLD]), bytes([Kind.VERDICT]))


class StoredLog:
    """In one transaction."""

    def __init__(self, connection: sa.Connection, report: Report) -> None:
        self._connection, self._report = connection, report
        self._last = b""

    def find_tile(self, tile: Tile) -> bytes | None:
        return find_tile(self._connection, tile.level, tile.index)

    def parts(self) -> Iterator[Part]:
        """All entries, or those before the first that is missing."""
        for part in read_parts(self._connection):
            for index in part.sealed:
                if part.entries[index - part.start][1:2] not in SEALED_KINDS:
                    self._report.find("log_sealed", "the sealed part is of an entry that has no seal", index)
            self._last = part.entries[-1]
            yield part

    def check_rest(self, frontier: Frontier) -> None:
        """What there is besides entries and tiles, once all parts have been taken."""
        time_ms = HEADER.unpack_from(self._last)[3] if len(self._last) >= HEADER.size else 0
        due = {"id": 1, "size": frontier.size, "frontier": frontier.pack(), "time_ms": time_ms}
        heads = list(read_rows(self._connection, log_head))
        if len(heads) != 1:
            self._report.find("log_head", f"it has {len(heads)} rows")
        for head in heads:
            differ = [name for name, kept in zip(due, head, strict=True) if kept != due[name]]
            if differ:
                message = f"{', '.join(differ)}: not those of a log whose entries end at {frontier.size}"
                self._report.find("log_head", message, frontier.size)
        for place in find_strays(self._connection, frontier.size):
            self._report.find(place, f"the log ends at {frontier.size}, or has a gap there")
