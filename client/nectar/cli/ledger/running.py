"""`nectar ledger init`, `nectar ledger serve`"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.ledger import place, policyfile
from nectar.cli.output import configure_logging, emit, say
from nectar.cli.settings import option

if TYPE_CHECKING:
    from nectar_ledger.home import Home
    from nectar_ledger.service import Service
    from nectar_ledger.store.database import Database


@click.command(short_help="Make a ledger: its keys, its database, its first entry.")
@click.argument("network")
@place.data
@place.database
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its first policy, as `nectar ledger policy template` prints one.",
)
@click.option(
    "--swarm",
    type=click.Choice(["trusted", "open"]),
    default="trusted",
    show_default=True,
    help="Without --policy: begin with the example for friends, or for strangers.",
)
@options.json_output
def init(network: str, root: Path, database: str | None, policy_file: Path | None, swarm: str, as_json: bool) -> None:
    """Make a ledger named NETWORK, which is its log's origin for ever: ledger.DOMAIN/NAME."""
    from nectar_ledger.home import Home, Role, read_genesis
    from nectar_protocol.note import Kind, NoteKey

    policy = policyfile.example(swarm) if policy_file is None else policyfile.read_policy(policy_file, 1)
    home = Home.create(root, network, policy, database)
    opened = home.database()
    try:
        ledger, genesis = read_genesis(opened)
    finally:
        opened.writing.dispose()
    log_key = NoteKey(genesis.network, Kind.NOTE, genesis.log)
    if as_json:
        emit(ledger=ledger.hex(), network=network, log_key=str(log_key), data=str(root), database=home.database_url)
        return
    say(f"made in {root}. Keep copies of {home.keys} elsewhere: who loses these keys loses the ledger.")
    say(f"{home.key_file(Role.OPERATOR)} and {home.key_file(Role.POLICY)} are not needed while it runs.")
    say(f"Its log's key, for whoever audits: {log_key}")
    click.echo(ledger.hex())


@click.command(short_help="Run a ledger.")
@place.data
@place.database
@option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=8420, show_default=True, help="The TCP port to listen on.")
@option("--public-url", metavar="URL", help="Where others reach it: https://HOST, if a proxy stands before it.")
@option(
    "--witnesses",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A list of witnesses, a vkey and a URL a line; `witnesses` in the folder by default.",
)
@click.option("--until-eof", is_flag=True, hidden=True, help="End when standard input does, as a child process does.")
@options.json_output
@options.verbose
def serve(
    root: Path,
    database: str | None,
    host: str,
    port: int,
    public_url: str | None,
    witnesses: Path | None,
    until_eof: bool,
    as_json: bool,
    verbose: int,
) -> None:
    """Run a ledger until Ctrl-C or SIGTERM; everything that was accepted is recorded and signed then."""
    configure_logging(verbose)
    from nectar_ledger.api.app import create_app
    from nectar_ledger.log.witness import read_witnesses
    from nectar_ledger.server import listen
    from nectar_ledger.server import serve as serve_app

    with place.open_ledger(root, database) as (home, opened):
        asked = read_witnesses(witnesses or home.witnesses)
        with listen(host, port) as listener:
            service = start_service(home, opened)
            if until_eof:
                threading.Thread(target=end_with_stdin, daemon=True).start()
            ledger = service.ledger_id.hex()

            def tell(url: str) -> None:
                if as_json:
                    emit(event="serving", url=url, ledger=ledger, pid=os.getpid())
                else:
                    say(f"ledger {ledger}, with {len(asked)} witnesses, at:")
                    click.echo(url)

            serve_app(create_app(service, public_url=public_url, witnesses=asked), listener, tell)


def end_with_stdin() -> None:
    """What SIGTERM does, once standard input has ended."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def start_service(home: "Home", database: "Database") -> "Service":
    """Raises LockedError if the ledger runs already, ForkError for a log that is not the newest."""
    from nectar_ledger.service import Service

    sequencer = home.sequencer(database)
    try:
        signer = home.signer(database)
    except BaseException:
        sequencer.close()
        raise
    return Service(database, sequencer, signer, home.evidence)
