"""`nectar ledger backup`, `nectar ledger restore`, `nectar ledger export`"""

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.ledger import place
from nectar.cli.ledger.auditing import entry_count
from nectar.cli.output import emit, say

if TYPE_CHECKING:
    from nectar_ledger.home import Home
    from nectar_ledger.store.database import Database
    from nectar_protocol.note import Note


@click.command(short_help="Copy a ledger's database, while it runs.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@place.data
@place.database
@options.json_output
def backup(file: Path, root: Path, database: str | None, as_json: bool) -> None:
    """Copy a ledger's database into FILE, as it is at one moment, while it runs.

    Keys and evidence are not in it: copy `keys` and `evidence` by other means. Leave `published` where it is: it is
    what tells a restored ledger that something newer has been signed. A large ledger on PostgreSQL is better backed up
    by pg_basebackup and its write-ahead log.
    """
    from nectar_ledger.backup import back_up

    with place.open_ledger(root, database) as (home, _):
        back_up(home, file)
    if as_json:
        emit(file=str(file), bytes=file.stat().st_size)
    else:
        click.echo(f"{file}: {file.stat().st_size} bytes")


@click.command(short_help="Put a backup in a lost database's place.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@place.data
@place.database
@options.json_output
def restore(file: Path, root: Path, database: str | None, as_json: bool) -> None:
    """Verify FILE, a backup, and put it in the place of a database that was lost and is not there any more.

    If a newer checkpoint was published than the backup has entries, the ledger will not start: restore a newer one, or
    begin another log.
    """
    from nectar_ledger.backup import restore as restore_backup
    from nectar_ledger.home import Home

    with entry_count() as progress:
        report, published = restore_backup(Home.without_database(root, database), file, progress)
    is_old = published > report.size
    if as_json:
        emit(size=report.size, published=published, signs=not is_old)
        return
    click.echo(f"restored {report.size} entries")
    if is_old:
        say(
            f"A checkpoint over {published} entries is published: this ledger will refuse to sign. Find a newer backup."
        )


@click.command(short_help="Write a ledger's log as files, or as JSON.")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@place.data
@place.database
@click.option("--start", type=click.IntRange(0), default=0, help="Without FOLDER: begin with this entry.")
@options.json_output
def export(folder: Path | None, root: Path, database: str | None, start: int, as_json: bool) -> None:
    """Write a ledger's log into FOLDER as tiles (c2sp.org/tlog-tiles), which any web server can serve and anybody can
    audit with nectar ledger verify --tiles. Again into the same folder, only what is new is written.

    Without FOLDER: print its entries as JSON, one a line. What is sealed is in neither.
    """
    with place.open_ledger(root, database) as (home, opened):
        if folder is None:
            print_entries(opened, start)
        else:
            write_tiles(home, opened, folder, as_json)


def write_tiles(home: "Home", database: "Database", folder: Path, as_json: bool) -> None:
    from nectar_ledger.log.export import export_tiles
    from nectar_ledger.log.reader import LogReader
    from nectar_protocol.checkpoint import Checkpoint

    note = newest_checkpoint(home, database)
    written, size = export_tiles(LogReader(database), note, folder), Checkpoint.parse(note.text).size
    if as_json:
        emit(folder=str(folder), size=size, files=written)
    else:
        click.echo(f"{folder}: {size} entries, {written} files written")


def newest_checkpoint(home: "Home", database: "Database") -> "Note":
    """Over all entries if the ledger does not run and its key is here; else the last one that was signed.

    Raises NotFoundError if none was.
    """
    from nectar_ledger.errors import HomeError, LockedError, NotFoundError
    from nectar_ledger.store.reading import read_newest_checkpoint

    try:
        with database.hold(0):
            return home.signer(database).sign()
    except (LockedError, HomeError):
        with database.reading.begin() as connection:
            note = read_newest_checkpoint(connection)
    if note is None:
        raise NotFoundError("no checkpoint has been signed yet; start the ledger once: nectar ledger serve")
    return note


def print_entries(database: "Database", start: int) -> None:
    from nectar_ledger.api.fields import name_of
    from nectar_ledger.api.records import view
    from nectar_ledger.store.scan import read_parts
    from nectar_protocol.entry import parse_entry

    with database.reading.begin() as connection:
        for part in read_parts(connection, start):
            for index, data in enumerate(part.entries, part.start):
                entry = parse_entry(data)
                emit(
                    index=index,
                    kind=name_of(entry.kind),
                    time_ms=entry.time_ms,
                    entry=b64encode(data).decode(),
                    body=view(entry.body),
                )
