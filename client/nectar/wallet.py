"""A wallet: the key of an account on a ledger. It pays for sessions and is paid for nodes' work.

Whoever has the file has the credits; losing it is losing them. It never appears in the swarm.
"""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from nectar_ledger_client.accounts import Balance, PurseLine, StatementLine
from nectar_ledger_client.accounts import Purse as PurseBalance
from nectar_ledger_client.binding import complete_request, parse_request
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.errors import RefusedError
from nectar_ledger_client.work import HoldView, NodeView
from nectar_protocol.commands import FundPurse, WithdrawPurse
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import Identity, PublicKey
from nectar_swarm.keyfile import load_or_create_key

from nectar.errors import RequestError
from nectar.home import data_folder
from nectar.ledger import COMMAND_LIFE_MS

T = TypeVar("T")


def default_file() -> Path:
    return data_folder() / "wallet.key"


class Wallet:
    """An account's key, and the ledger at `address`. Close it, or use it in a `with`.

    What asks the ledger raises LedgerClientError. Amounts are µcr.
    """

    def __init__(self, address: str, identity: Identity) -> None:
        self.identity = identity
        self.client = LedgerClient(address)

    @classmethod
    def open(cls, address: str, path: str | Path | None = None) -> "Wallet":
        """By its key file, which is made if there is none. Raises KeyFileError, LedgerClientError."""
        return cls(address, load_or_create_key(Path(path) if path else default_file()))

    def __enter__(self) -> "Wallet":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    @property
    def account(self) -> PublicKey:
        return self.identity.public

    def balance(self) -> Balance | None:
        """The public balance; None for an account that the ledger does not know yet."""
        try:
            return self.client.balance(self.account)
        except RefusedError as error:
            if not error.is_not_found:
                raise
            return None

    def purse(self) -> PurseBalance | None:
        """The private one, from which holds are paid; None if nothing ever went into it."""
        try:
            return self.client.purse(self.identity)
        except RefusedError as error:
            if not error.is_not_found:
                raise
            return None

    def statement(self, after: int | None = None) -> Iterator[StatementLine]:
        """What moved the balance, the newest first unless it begins behind entry `after`."""
        return _known(self.client.statement(self.account, after))

    def purse_statement(self, after: int | None = None) -> Iterator[PurseLine]:
        return _known(self.client.purse_statement(self.identity, after))

    def holds(self, after: int | None = None) -> Iterator[HoldView]:
        """Those that were paid from the purse."""
        return _known(self.client.holds_of(self.identity, after))

    def nodes(self) -> Iterator[NodeView]:
        """Those whose earnings come here."""
        return _known(self.client.nodes_of(self.account))

    def fund(self, amount_ucr: int) -> int | None:
        """Move a round amount from the balance into the purse; the entry that it became."""
        return self._move(FundPurse, amount_ucr)

    def withdraw(self, amount_ucr: int) -> int | None:
        """Move a round amount from the purse back into the balance; the entry that it became."""
        return self._move(WithdrawPurse, amount_ucr)

    def bind(self, request: str) -> tuple[PublicKey, int | None]:
        """Be the payee of the node that has printed this request: the node, and the entry that the binding became.

        Raises RequestError for what is no such request, or not one for this account on this ledger.
        """
        try:
            command, _ = parse_request(request)
            if command.payee != self.account:
                raise RequestError(f"the node wants account {command.payee.hex()} for its payee, not this wallet's")
            ledger = self.client.known().ledger
            if command.ledger != ledger:
                raise RequestError(f"the request is for the ledger {command.ledger.hex()}; this is {ledger.hex()}")
            signed = complete_request(request, self.identity)
        except ProtocolError as error:
            raise RequestError(f"this is no node's request: {error}") from error
        return command.node, self.client.send_command(signed).index

    def _move(self, kind: type[FundPurse | WithdrawPurse], amount_ucr: int) -> int | None:
        step = self.client.policy().purse_step_ucr
        if amount_ucr <= 0 or amount_ucr % step:
            raise RequestError(f"a purse moves multiples of {step} µcr, so that amounts tell nothing; not {amount_ucr}")
        expires_ms = time.time_ns() // 1_000_000 + COMMAND_LIFE_MS
        command = kind(self.client.known().ledger, secrets.token_bytes(16), expires_ms, self.account, amount_ucr)
        return self.client.send_command(command.signed(self.identity)).index


def _known(lines: Iterator[T]) -> Iterator[T]:
    """None of an account that the ledger does not know yet."""
    try:
        yield from lines
    except RefusedError as error:
        if not error.is_not_found:
            raise
