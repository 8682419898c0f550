"""Where a command finds its ledger: in a data folder of this machine, or at an address."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.settings import option
from nectar.home import data_folder

if TYPE_CHECKING:
    from nectar_ledger.home import Home
    from nectar_ledger.store.database import Database


def default_folder() -> Path:
    return data_folder() / "ledger"


data = option(
    "--data",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_folder,
    help="The ledger's data folder; ledger in Nectar's own by default.",
)
database = option(
    "--database", metavar="URL", help="Its database, if that is not in the folder: postgresql://USER@HOST/DATABASE"
)
address = option(
    "--ledger", "address", metavar="URL", help="A ledger that runs, by its address, instead of the folder."
)
signing_key = option(
    "--signing-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The key file to sign with; the folder's own by default.",
)
readable = options.all_of([data, database, address])
writable = options.all_of([data, database, address, signing_key])


@contextmanager
def open_ledger(root: Path, url: str | None) -> "Iterator[tuple[Home, Database]]":
    """The ledger in a folder, and its database. Raises HomeError, StoreError if either is not there."""
    from nectar_ledger.home import Home
    from nectar_ledger.store.versions import check_database

    home = Home.open(root, url)
    opened = home.database()
    try:
        check_database(opened)
        yield home, opened
    finally:
        opened.writing.dispose()
