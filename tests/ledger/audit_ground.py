"""What tests of the audit share: a town that has lived, and one wrong bit."""

from pathlib import Path
from typing import NamedTuple

from nectar_ledger.core.machine import Draft
from nectar_protocol.note import Note

from tests.ledger.town import Town


class Lived(NamedTuple):
    """What is left of a day in a town: its database as a file, the newest checkpoint, and the log."""

    town: Town
    path: Path
    note: Note
    drafts: list[Draft]


def flip(data: bytes, at: int) -> bytes:
    """One bit of it is another."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
