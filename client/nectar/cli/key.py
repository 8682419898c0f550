"""`nectar key`"""

from pathlib import Path

import click

from nectar.cli import options
from nectar.cli.output import emit
from nectar.cli.settings import option
from nectar.home import data_folder


@click.command(short_help="Show a key's peer ID; make the key if there is none.")
@option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), help="The key file; a node's own by default."
)
@options.json_output
def command(path: Path | None, as_json: bool) -> None:
    """Show the peer ID of a key, and make the key if there is none.

    Whoever has the file is this peer; losing it is losing the peer's name. It is made with mode 0600.
    """
    from nectar_swarm.keyfile import load_or_create_key

    path = path or data_folder() / "node.key"
    identity = load_or_create_key(path)
    if as_json:
        emit(peer=identity.peer_id, public_key=identity.public.hex(), file=str(path))
    else:
        click.echo(identity.peer_id)
        click.echo(f"in {path}", err=True)
