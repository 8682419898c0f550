"""`nectar ledger verify`, `nectar ledger rebuild`"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nectar.cli import options
from nectar.cli.ledger import place
from nectar.cli.output import emit, say, stderr
from nectar.cli.settings import option

if TYPE_CHECKING:
    from nectar_ledger.audit.report import Report

FAULTY = 3


@click.command(short_help="Hold everything that a ledger says against its log.")
@place.data
@place.database
@click.option(
    "--tiles",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Verify a log from its files alone, as anybody can; see nectar ledger export.",
)
@option("--log-key", metavar="VKEY", help="With --tiles: the log's key, as its operator published it.")
@click.option("--signatures/--no-signatures", default=True, help="Verify every signature in the log: most of the work.")
@click.option("--threads", type=click.IntRange(1), help="How many threads verify signatures; all cores by default.")
@options.json_output
def verify(
    root: Path,
    database: str | None,
    tiles: Path | None,
    log_key: str | None,
    signatures: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Hold everything that a ledger says against its log: every rule, row, tile, checkpoint and signature.

    It may run meanwhile. Ends with 0 if all is as it should be, else with 3.
    """
    if tiles is None and log_key is not None:
        raise click.UsageError("--log-key goes with --tiles; a database knows its log's key")
    if tiles is None:
        report = _verify_database(root, database, signatures, threads)
    else:
        report = _verify_tiles(tiles, log_key, signatures, threads)
    tell_json(report) if as_json else tell(report)
    if report.found:
        sys.exit(FAULTY)


@click.command(short_help="Write a ledger's tables anew from its log.")
@place.data
@place.database
@options.json_output
def rebuild(root: Path, database: str | None, as_json: bool) -> None:
    """Write every table anew from the log and its sealed parts, all or nothing. The ledger must not run."""
    from nectar_ledger.audit.rebuild import rebuild as rebuild_tables

    with place.open_ledger(root, database) as (_, opened), entry_count() as progress:
        size = rebuild_tables(opened, progress).size
    if as_json:
        emit(size=size)
    else:
        click.echo(f"rebuilt from {size} entries")


def _verify_database(root: Path, database: str | None, signatures: bool, threads: int | None) -> "Report":
    from nectar_ledger.audit.verify import verify as verify_database
    from nectar_ledger.log.witness import read_witnesses

    with place.open_ledger(root, database) as (home, opened), entry_count() as progress:
        witnesses = [witness.key for witness in read_witnesses(home.witnesses)]
        return verify_database(opened, home.published.read(), witnesses, signatures, threads, progress)


def _verify_tiles(folder: Path, log_key: str | None, signatures: bool, threads: int | None) -> "Report":
    from nectar_ledger.audit.public import verify_public
    from nectar_protocol.note import NoteKey

    key = None if log_key is None else NoteKey.parse(log_key)
    with entry_count() as progress:
        return verify_public(folder, key, (), signatures, threads, progress)


def tell(report: "Report") -> None:
    from nectar_protocol.money import format_credits

    for finding in report.findings:
        click.echo(str(finding))
    rows = sum(count for what, count in report.checked.items() if what.startswith("rows of "))
    others = {what: count for what, count in report.checked.items() if count and not what.startswith("rows of ")}
    counted = [f"{count} {what}" for what, count in others.items()] + ([f"{rows} rows"] if rows else [])
    say(f"looked at {', '.join(sorted(counted))}")
    if (supply := report.supply) is not None:
        emitted, burned = format_credits(supply.emitted_ucr), format_credits(supply.burned_ucr)
        left = supply.wallets_ucr + supply.pool_ucr + supply.holds_ucr + supply.batches_ucr
        say(f"supply: {emitted} credits emitted, {burned} burned, {format_credits(left)} there")
    if report.found:
        say(f"{report.found} things are wrong")
    else:
        click.echo(f"{report.size} entries, all as they should be, under root {report.root.hex()}")


def tell_json(report: "Report") -> None:
    """One object; amounts are decimal strings of µcr."""
    supply = None if report.supply is None else {name: str(ucr) for name, ucr in asdict(report.supply).items()}
    emit(
        ledger=None if report.ledger is None else report.ledger.hex(),
        size=report.size,
        root=report.root.hex(),
        checked=dict(report.checked),
        supply=supply,
        found=report.found,
        findings=[asdict(finding) for finding in report.findings],
    )


@contextmanager
def entry_count() -> Iterator[Callable[[int], None]]:
    """How many entries have been looked at, on stderr where that is a terminal."""
    if not stderr.is_terminal:
        yield lambda entries: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed} entries"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda entries: progress.update(task, completed=entries)
