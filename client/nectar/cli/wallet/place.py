"""Which wallet, on which ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nectar.cli import options

if TYPE_CHECKING:
    from nectar.wallet import Wallet

ledger, file = options.ledger, options.wallet
both = options.all_of([ledger, file])


@contextmanager
def open_wallet(address: str | None, path: Path | None) -> "Iterator[Wallet]":
    """Options that stand before a subcommand count too. Raises click.UsageError, KeyFileError, LedgerClientError."""
    address = address or _before("ledger")
    if address is None:
        raise click.UsageError("no ledger is named: give --ledger URL, or set ledger_url in nectar.toml")
    from nectar.wallet import Wallet

    with Wallet.open(address, wallet_file(path)) as wallet:
        yield wallet


def wallet_file(path: Path | None) -> Path:
    from nectar.home import data_folder

    return path or _before("wallet") or data_folder() / "wallet.key"


def _before(name: str) -> Any:
    """What the group was given for an option that its subcommand has as well."""
    parent = click.get_current_context().parent
    return None if parent is None else parent.params.get(name)
