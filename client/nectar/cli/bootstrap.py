"""`nectar bootstrap`"""

from pathlib import Path

import click
from nectar_swarm.lean import importing

from nectar.cli import options
from nectar.cli.output import configure_logging, emit, say
from nectar.cli.service import serve
from nectar.home import data_folder


@click.command(short_help="A peer that introduces others and keeps the directory.")
@options.initial_peers
@options.all_of(options.listen)
@options.own_key
@options.allowed_peers
@options.json_output
@options.verbose
def command(
    initial_peers: tuple[str, ...],
    host: str,
    port: int,
    announce: tuple[str, ...],
    key: Path | None,
    allowed_peers: tuple[str, ...],
    as_json: bool,
    verbose: int,
) -> None:
    """Run a peer that serves no blocks: it introduces the others, keeps the directory, and relays."""
    configure_logging(verbose)
    peers, allowed = options.parse_peers(initial_peers), options.parse_allowed(allowed_peers)
    with importing():
        from nectar_swarm.bootstrap import run_bootstrap
        from nectar_swarm.host import Listen

    def tell(addresses: list[str]) -> None:
        if as_json:
            emit(event="serving", addresses=addresses)
            return
        say("others join this swarm with:")
        click.echo(f"nectar swarm join {addresses[0]}")

    key_file, where = key or data_folder() / "bootstrap.key", Listen(host, port, announce)
    serve(lambda stop: run_bootstrap(key_file, where, peers, allowed, stop, tell))
