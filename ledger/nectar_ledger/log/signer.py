"""Signs the log's checkpoints, each a continuation of the one before.

Only what is durable is signed: the head is read in a transaction of its own, which sees committed rows alone. A
checkpoint goes into the file outside of the database before anybody sees it, so whatever is restored later, the log
never signs two trees that do not continue each other.
"""

from collections.abc import Callable
from threading import Lock

from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import Identity
from nectar_protocol.note import Kind, Note, NoteKey

from nectar_ledger.errors import ForkError
from nectar_ledger.log.published import Published
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import add_checkpoint, read_newest_checkpoint

REMEDY = (
    "Nothing is signed. Restore a newer database; if the entries are lost, close this log and begin another one whose "
    "first entry names the last published checkpoint"
)


class Signer:
    """For the process that holds the sequencer's lock. Raises ForkError if the log is not what was published."""

    def __init__(
        self, database: Database, origin: str, identity: Identity, published: Published, clock_ms: Callable[[], int]
    ) -> None:
        self._database, self._log = database, LogReader(database)
        self._key, self._identity = NoteKey(origin, Kind.NOTE, identity.public), identity
        self._published, self._clock_ms = published, clock_ms
        self._lock = Lock()
        self._last = self._newest_known()

    @property
    def last(self) -> Note | None:
        """What was published last."""
        return self._last

    def sign(self) -> Note:
        """The checkpoint of the log as it is. Raises ForkError, and StoreError if it cannot be kept."""
        with self._lock:
            size = self._log.size()
            self._check(self._last, size)
            if self._last is not None and self._open(self._last).size == size:
                return self._last
            note = Checkpoint(self._key.name, size, self._log.root(size)).signed(self._identity)
            self._published.write(note)
            self._last = note
            with self._database.writing.begin() as connection:
                add_checkpoint(connection, size, note, self._clock_ms())
            return note

    def _newest_known(self) -> Note | None:
        published = self._published.read()
        with self._database.reading.begin() as connection:
            stored = read_newest_checkpoint(connection)
        if published is None and stored is not None:
            raise ForkError(
                f"{self._published.path} is missing, though checkpoints were published. Nothing is signed: put it "
                "back, or put the newest checkpoint there that a witness or a reader has"
            )
        notes = [note for note in (published, stored) if note is not None]
        size = self._log.size()
        for note in notes:
            self._check(note, size)
        return max(notes, key=lambda note: self._open(note).size, default=None)

    def _check(self, note: Note | None, size: int) -> None:
        """That a log of `size` entries, ours, continues what `note` says."""
        if note is None:
            return
        known = self._open(note)
        if size < known.size:
            raise ForkError(f"the log has {size} entries, and a checkpoint over {known.size} is published. {REMEDY}")
        if self._log.root(known.size) != known.root:
            raise ForkError(f"the log's first {known.size} entries are not those of the published checkpoint. {REMEDY}")

    def _open(self, note: Note) -> Checkpoint:
        try:
            return open_checkpoint(note, self._key).checkpoint
        except ProtocolError as error:
            raise ForkError(f"the last published checkpoint is not one of this log ({error}). {REMEDY}") from error
