"""The last checkpoint that was given away, in a file outside the database: what a restored backup cannot take back."""

import os
from pathlib import Path

from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import MAX_BYTES, Note

from nectar_ledger.errors import ForkError, StoreError


class Published:
    """A signed note in a file that is replaced as a whole. Do not put it into the database's backup."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Note | None:
        """None if there is no file. Raises ForkError if it cannot be read."""
        try:
            with self.path.open("rb") as file:
                return Note.unpack(file.read(MAX_BYTES + 1))
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as error:
            raise ForkError(
                f"{self.path}, the last published checkpoint, cannot be read ({error}): put the newest known one there"
            ) from error

    def write(self, note: Note) -> None:
        """Durable when this returns. Raises StoreError; the file is then the old or the new one."""
        draft = self.path.with_name(f"{self.path.name}.new")
        try:
            with draft.open("wb") as file:
                file.write(note.pack())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error.strerror}; nothing is published until it can"
            ) from error
