"""The newest checkpoint that a reader of a log has seen, in a file: what a log cannot make it forget."""

import os
from pathlib import Path

from nectar_protocol.errors import ProtocolError
from nectar_protocol.note import MAX_BYTES, Note

from nectar_ledger_client.errors import FileError


class KeptNote:
    """A signed note in a file that is replaced as a whole. When two notes contradict each other, both are put beside
    it, as `NAME.fork-kept` and `NAME.fork-served`: anybody can check them against the log's key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Note | None:
        """None if there is no file. Raises FileError if it cannot be read."""
        try:
            with self.path.open("rb") as file:
                return Note.unpack(file.read(MAX_BYTES + 1))
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as error:
            raise FileError(
                f"{self.path}, the newest checkpoint seen, cannot be read ({error}): put it back from a backup; "
                "without it, a log that was rewritten meanwhile would not be noticed"
            ) from error

    def write(self, note: Note) -> None:
        """Durable when this returns. Raises FileError; the file is then the old or the new one."""
        _replace(self.path, note.pack())

    def set_aside(self, served: Note) -> str:
        """Keep what was served beside what is kept, and say where. The first two are never overwritten."""
        aside = [self.path.with_name(f"{self.path.name}.fork-{role}") for role in ("kept", "served")]
        try:
            if not all(path.exists() for path in aside):
                kept = self.read()
                for path, note in zip(aside, (kept, served), strict=True):
                    if note is not None:
                        _replace(path, note.pack())
        except FileError as error:
            return f"one of them is lost ({error})"
        return " and ".join(map(str, aside))


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.new")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}; make room, or choose another folder") from error
