"""What the ledger says of the demo, read from its public API, as anybody can."""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nectar.wallet import Wallet
from nectar_ledger_client.answers import SupplyNow
from nectar_ledger_client.client import LedgerClient
from nectar_protocol.checkpoint import Checkpoint

SETTLE_S = 15.0
LOOK_S = 0.25
EARNED = ("emit", "release")  # what a statement calls it


@dataclass(frozen=True)
class Owner:
    """Amounts in µcr. `earned` went into the account, `purse` lies ready for sessions."""

    name: str
    earned_ucr: int
    balance_ucr: int
    purse_ucr: int

    @property
    def has_ucr(self) -> int:
        return self.balance_ucr + self.purse_ucr

    @property
    def spent_ucr(self) -> int:
        return self.earned_ucr - self.has_ucr


@dataclass(frozen=True)
class Books:
    """`size` and `root` are those of the log's newest checkpoint."""

    owners: tuple[Owner, ...]
    supply: SupplyNow
    origin: str
    size: int
    root: str

    @property
    def balances_ucr(self) -> int:
        """Of everybody and everything."""
        supply = self.supply.supply
        return supply.wallets_ucr + supply.pool_ucr + supply.holds_ucr + supply.batches_ucr

    @property
    def balanced(self) -> bool:
        supply = self.supply.supply
        return supply.emitted_ucr - supply.burned_ucr == self.balances_ucr


def read_books(url: str, wallets: Mapping[str, Path]) -> Books:
    """Raises LedgerClientError."""
    with LedgerClient(url) as client:
        supply = client.supply()
        checkpoint = Checkpoint.parse(client.checkpoint().text)
    owners = tuple(read_owner(url, name, path) for name, path in wallets.items())
    root = base64.b64encode(checkpoint.root).decode()
    return Books(owners, supply, checkpoint.origin, checkpoint.size, root)


def read_owner(url: str, name: str, wallet_file: Path) -> Owner:
    with Wallet.open(url, wallet_file) as wallet:
        balance, purse = wallet.balance(), wallet.purse()
        earned = sum(line.amount_ucr for line in wallet.statement() if line.code in EARNED)
    return Owner(name, earned, balance.balance_ucr if balance else 0, purse.balance_ucr if purse else 0)


def wait_for_credits(url: str, wallet_file: Path, amount_ucr: int, timeout_s: float) -> None:
    """Until an account has so much; not for ever."""
    until_s = time.monotonic() + timeout_s
    with Wallet.open(url, wallet_file) as wallet:
        while time.monotonic() < until_s:
            balance = wallet.balance()
            if balance is not None and balance.balance_ucr >= amount_ucr:
                return
            time.sleep(LOOK_S)


def wait_until_settled(url: str) -> None:
    """Until nothing is set aside and nothing waits for its release; not for ever."""
    until_s = time.monotonic() + SETTLE_S
    with LedgerClient(url) as client:
        while time.monotonic() < until_s:
            supply = client.supply().supply
            if not supply.holds_ucr and not supply.batches_ucr:
                return
            time.sleep(LOOK_S)
