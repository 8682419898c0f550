"""Where commands are handed in: to a ledger that runs, or to the database of one that does not."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nectar.cli.ledger.place import open_ledger

if TYPE_CHECKING:
    from nectar_ledger.home import Home
    from nectar_ledger.store.database import Database
    from nectar_ledger_client.client import LedgerClient
    from nectar_protocol.command import Command, SignedCommand
    from nectar_protocol.policy import Policy

LIFE_MS = 3_600_000


class Counter(Protocol):
    """One ledger, and what is asked of it."""

    def ledger(self) -> bytes:
        """Its ID."""

    def policy(self) -> "Policy":
        """The one in force."""

    def model_version(self, model: bytes) -> int:
        """Of the newest entry of a model; 0 without one."""

    def send(self, signed: "SignedCommand") -> int | None:
        """The entry that the command has become; None if it changed nothing."""


class Remote:
    """A ledger at an address."""

    def __init__(self, client: "LedgerClient") -> None:
        self._client = client

    def ledger(self) -> bytes:
        return self._client.known().ledger

    def policy(self) -> "Policy":
        return self._client.policy()

    def model_version(self, model: bytes) -> int:
        from nectar_ledger_client.errors import RefusedError

        try:
            return self._client.model(model).version
        except RefusedError as error:
            if error.status == 404:
                return 0
            raise

    def send(self, signed: "SignedCommand") -> int | None:
        return self._client.send_command(signed).index


class Direct:
    """A ledger that does not run, by its database."""

    def __init__(self, home: "Home", database: "Database") -> None:
        self._home, self._database = home, database

    def ledger(self) -> bytes:
        from nectar_ledger.home import read_genesis

        return read_genesis(self._database)[0]

    def policy(self) -> "Policy":
        from nectar_ledger.errors import HomeError
        from nectar_ledger.store.views.policies import newest_policy

        with self._database.reading.begin() as connection:
            row = newest_policy(connection)
        if row is None:
            raise HomeError("the database has no ledger; make one with: nectar ledger init")
        return row.policy

    def model_version(self, model: bytes) -> int:
        from nectar_ledger.store.views.models import find_model

        with self._database.reading.begin() as connection:
            row = find_model(connection, model)
        return 0 if row is None else row.entry.version

    def send(self, signed: "SignedCommand") -> int | None:
        from nectar_ledger.core.orders import Obey
        from nectar_ledger.errors import LockedError
        from nectar_ledger.home import new_salt

        signed.verify()
        try:
            (answer,) = self._home.record(self._database, [Obey(signed, new_salt())])
        except LockedError as error:
            raise LockedError("the ledger runs: name its address, --ledger URL") from error
        return answer.index


@dataclass(frozen=True)
class Desk:
    """Where one's own commands are signed and handed in. `signing_key` is used instead of the folder's keys."""

    counter: Counter
    root: Path
    signing_key: Path | None

    def issue(self, kind: "type[Command]", role: str, **fields: Any) -> int | None:
        """Sign a command as its one signer, whose key the folder keeps for `role`; the entry it has become."""
        from nectar_ledger.home import Home, Role
        from nectar_ledger.keyfile import load_key

        signer = load_key(self.signing_key or Home(self.root, "").key_file(Role(role)))
        expires_ms = time.time_ns() // 1_000_000 + LIFE_MS
        fields[kind.SIGNERS[0]] = signer.public
        command = kind(self.counter.ledger(), secrets.token_bytes(16), expires_ms, **fields)
        return self.counter.send(command.signed(signer))


@contextmanager
def open_desk(root: Path, database: str | None, address: str | None, signing_key: Path | None = None) -> Iterator[Desk]:
    """Of the ledger at the address, or else of the one in the folder. Raises HomeError, LedgerClientError."""
    if address is not None:
        from nectar_ledger_client.client import LedgerClient

        with LedgerClient(address) as client:
            yield Desk(Remote(client), root, signing_key)
        return
    with open_ledger(root, database) as (home, opened):
        yield Desk(Direct(home, opened), root, signing_key)
