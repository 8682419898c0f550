"""A ledger's data folder.

    ledger.db       the database, where none is named by its URL
    published       the last checkpoint that was given away
    keys/ROLE.key   operator, policy, holds and log; the first two may lie elsewhere while the ledger runs
    evidence/       what verdicts were made from
    witnesses       who cosigns the log's checkpoints: a key and a URL a line

`published` must not be in a backup of the database, or a restored one would not know that it is old.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nectar_protocol.entries import Genesis
from nectar_protocol.entry import entry_hash, parse_entry
from nectar_protocol.identity import Identity
from nectar_protocol.note import check_name
from nectar_protocol.policy import Policy

from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.machine import Answer, ReadRows, Rejected
from nectar_ledger.core.orders import Begin, Order, Resume
from nectar_ledger.errors import HomeError
from nectar_ledger.keyfile import create_key, load_key
from nectar_ledger.log.published import Published
from nectar_ledger.log.reader import LogReader
from nectar_ledger.log.signer import Signer
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.sequencer import Sequencer, end_process, unix_ms
from nectar_ledger.store.tables import TABLES
from nectar_ledger.store.versions import migrate

SALT_SIZE = 32


class Role(StrEnum):
    """What a key of the ledger signs: what its operator may do; policies and models; holds; checkpoints."""

    OPERATOR = "operator"
    POLICY = "policy"
    HOLDS = "holds"
    LOG = "log"


@dataclass(frozen=True)
class Home:
    """`database_url` is `sqlite:///FILE` or `postgresql://…`."""

    root: Path
    database_url: str

    @classmethod
    def open(cls, root: Path, database_url: str | None = None) -> "Home":
        """Raises HomeError unless there is a ledger in the folder. Connects to nothing yet."""
        home = cls.without_database(root, database_url)
        if database_url is None and not home.default_database.is_file():
            raise HomeError(f"there is no {home.default_database}; name the ledger's database with --database URL")
        return home

    @classmethod
    def without_database(cls, root: Path, database_url: str | None = None) -> "Home":
        """One whose database may have been lost. Raises HomeError unless there are keys in the folder."""
        home = cls(root, database_url or _default_url(root))
        if not home.keys.is_dir():
            raise HomeError(f"there is no ledger in {root}; make one with: nectar ledger init --data {root}")
        return home

    @classmethod
    def create(
        cls,
        root: Path,
        network: str,
        policy: Policy,
        database_url: str | None = None,
        clock_ms: Callable[[], int] = unix_ms,
    ) -> "Home":
        """A new ledger: its keys, its database's tables, the first entry of its log, and a checkpoint over that.

        Raises HomeError if the folder or the database has one already, StoreError, MalformedError for a network's name
        that is none.
        """
        home = cls(root, database_url or _default_url(root))
        if home.keys.exists() or home.default_database.exists():
            raise HomeError(f"{root} has a ledger, and is never overwritten; choose another folder")
        check_name(network)
        _make_folders(root, home.evidence)
        if database_url is None:
            home.default_database.touch(mode=0o600)
        database = home.database()
        try:
            migrate(database)
            if LogReader(database).size():
                raise HomeError("the database has a ledger, and is never overwritten; name another one")
            _make_folders(home.keys)
            operator, publisher, holds, log = (create_key(home.key_file(role)).public for role in Role)
            home.record(database, [Begin(Genesis(network, operator, publisher, holds, log, policy))], clock_ms)
        finally:
            database.writing.dispose()
        return home

    @property
    def default_database(self) -> Path:
        return self.root / "ledger.db"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def witnesses(self) -> Path:
        return self.root / "witnesses"

    @property
    def published(self) -> Published:
        return Published(self.root / "published")

    def key_file(self, role: Role) -> Path:
        return self.keys / f"{role}.key"

    def identity(self, role: Role) -> Identity:
        """Raises HomeError if the key is not here."""
        return load_key(self.key_file(role))

    def database(self) -> Database:
        """A new one; it connects when it is used. Raises StoreError for a URL that is none."""
        return open_database(self.database_url)

    def sequencer(
        self,
        database: Database,
        clock_ms: Callable[[], int] = unix_ms,
        halt: Callable[[], None] = end_process,
        patience_s: float = 5,
    ) -> Sequencer[Order]:
        """The one that may write; it signs holds with this folder's key. Raises as `Sequencer`, and HomeError."""
        holds = self.identity(Role.HOLDS)

        def open_machine(read: ReadRows, size: int, time_ms: int) -> Ledger:
            return Ledger(load(read, size, time_ms), holds)

        return Sequencer(database, TABLES, open_machine, clock_ms, halt, patience_s)

    def signer(self, database: Database, clock_ms: Callable[[], int] = unix_ms) -> Signer:
        """For whoever holds the sequencer's lock. Raises HomeError, and ForkError for a log that is not the newest."""
        _, genesis = read_genesis(database)
        return Signer(database, genesis.network, self.identity(Role.LOG), self.published, clock_ms)

    def record(
        self, database: Database, orders: Sequence[Order], clock_ms: Callable[[], int] = unix_ms
    ) -> list[Answer]:
        """Write to the log of a ledger that is not running, after the entry that tells for how long it was not, and
        sign it.

        Signatures have been verified. Raises HomeError for what the ledger refuses, LockedError while it runs,
        ForkError for a log that is not the newest.
        """
        sequencer = self.sequencer(database, clock_ms, halt=_stay, patience_s=0)
        try:
            resume: list[Order] = [Resume()] if LogReader(database).size() else []
            if resume:
                self.signer(database, clock_ms)
            outcomes = sequencer.submit([*resume, *orders]).result()[len(resume) :]
            self.signer(database, clock_ms).sign()
        finally:
            sequencer.close()
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                raise HomeError(f"the ledger refuses: {outcome.message} ({outcome.code})")
        return [outcome for outcome in outcomes if isinstance(outcome, Answer)]


def read_genesis(database: Database) -> tuple[bytes, Genesis]:
    """The ledger's ID and its first entry. Raises HomeError for a log that does not begin with one."""
    reader = LogReader(database)
    if not reader.size():
        raise HomeError("the database has no ledger; make one with: nectar ledger init")
    entry = reader.entry(0)
    body = parse_entry(entry).body
    if not isinstance(body, Genesis):
        raise HomeError("the log does not begin with a genesis: restore the database from a backup")
    return entry_hash(entry), body


def new_salt() -> bytes:
    """For the sealed part of a command's entry."""
    return secrets.token_bytes(SALT_SIZE)


def _default_url(root: Path) -> str:
    return f"sqlite:///{(root / 'ledger.db').absolute()}"


def _make_folders(*folders: Path) -> None:
    try:
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HomeError(f"cannot make the folder {error.filename}: {error.strerror}") from error


def _stay() -> None:
    """Who waits is told by what the sequencer answers."""
