"""`nectar swarm`, `nectar swarm init`, `nectar swarm join`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from nectar_swarm.lean import importing
from rich.table import Table

from nectar.cli import options
from nectar.cli.output import configure_logging, emit, say, stdout
from nectar.cli.settings import FILE_NAME, config_file, option, write_setting
from nectar.home import data_folder

if TYPE_CHECKING:
    from nectar.census import SeenModel


@click.group(invoke_without_command=True, short_help="Show who serves what; make or join a swarm.")
@options.initial_peers
@options.allowed_peers
@options.client_key
@options.json_output
@options.verbose
@click.pass_context
def command(
    context: click.Context,
    initial_peers: tuple[str, ...],
    allowed_peers: tuple[str, ...],
    key: Path | None,
    as_json: bool,
    verbose: int,
) -> None:
    """Show the swarm's models, who serves which blocks, and how fast; or make or join a private swarm."""
    configure_logging(verbose)
    if context.invoked_subcommand is not None:
        return
    peers, allowed = options.need_peers(initial_peers), options.parse_allowed(allowed_peers)
    with importing():
        from nectar.census import take_census
        from nectar.connection import Connection

    connection = Connection.open(peers, allowed=allowed, key_file=key)
    try:
        models = connection.run(take_census(connection))
    finally:
        connection.close()
    if as_json:
        emit(models=[describe(model) for model in models])
    elif models:
        for model in models:
            stdout.print(draw(model))
    else:
        say("nobody serves a model in this swarm yet; start with: nectar node --model MODEL --initial-peers …")


@command.command()
@option("--host", default="0.0.0.0", show_default=True, help="The address its first peer will listen on.")
@option("--port", type=click.IntRange(1, 65535), default=31330, show_default=True, help="Its TCP port.")
@click.option("--public-ip", metavar="IP", help="The address others reach this machine at, if it is not its own.")
@options.json_output
def init(host: str, port: int, public_ip: str | None, as_json: bool) -> None:
    """Make a private swarm whose first peer is this machine.

    Writes its address into nectar.toml here, and prints the line with which others join.
    """
    with importing():
        from nectar_swarm.host import local_ip
        from nectar_swarm.keyfile import load_or_create_key
        from nectar_swarm.peeraddress import PeerAddress

    key_file = data_folder() / "bootstrap.key"
    identity = load_or_create_key(key_file)
    ip = public_ip or (local_ip() if host in ("0.0.0.0", "::") else host)
    family = "ip6" if ":" in ip else "ip4"
    address = str(PeerAddress.parse(f"/{family}/{ip}/tcp/{port}/p2p/{identity.peer_id}"))
    path = Path(FILE_NAME)
    write_setting(path, "initial_peers", [address])
    start = f"nectar bootstrap --host {host} --port {port}"
    if public_ip:
        start += f" --announce /{family}/{ip}/tcp/{port}"
    if as_json:
        emit(address=address, settings=str(path), start=start)
        return
    say(f"wrote {path}. Keep this running:  {start}")
    say("and let others join with:")
    click.echo(f"nectar swarm join {address}")


@command.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…")
@options.json_output
def join(addresses: tuple[str, ...], as_json: bool) -> None:
    """Join a swarm: check that a peer answers at ADDRESS, and remember it in nectar.toml."""
    peers = options.parse_peers(addresses)
    with importing():
        from nectar.connection import Connection

    Connection.open(peers).close()
    path = config_file() or Path(FILE_NAME)
    write_setting(path, "initial_peers", [str(peer) for peer in peers])
    if as_json:
        emit(joined=[str(peer) for peer in peers], settings=str(path))
    else:
        say(f"joined; {path} remembers it. Next: nectar swarm, nectar generate, nectar node")


def describe(model: "SeenModel") -> dict[str, Any]:
    """A model for machines."""
    from nectar_protocol.identity import peer_id

    return {
        "name": model.name,
        "model": model.model.hex(),
        "coverage": model.coverage(),
        "nodes": [
            {
                "peer": peer_id(node.announcement.node),
                "start": node.announcement.start,
                "stop": node.announcement.stop,
                "state": node.state,
                "profile": node.announcement.profile.name.lower(),
                "decode_us": node.announcement.decode_us,
                "prefill_us": node.announcement.prefill_us,
                "name": node.status.name if node.status else None,
                "device": node.status.device if node.status else None,
                "kv_free": node.status.kv_free if node.status else None,
                "kv_total": node.status.kv_total if node.status else None,
                "sessions": node.status.sessions if node.status else None,
                "version": node.status.version if node.status else None,
            }
            for node in model.nodes
        ],
    }


def draw(model: "SeenModel") -> Table:
    """A model for people: one row a node, with its blocks drawn to scale."""
    from nectar_protocol.identity import peer_id
    from rich.markup import escape

    coverage = model.coverage()
    gaps = sum(count == 0 for count in coverage)
    state = "[green]all blocks served[/]" if not gaps else f"[red]{gaps} of {model.blocks} blocks missing[/]"
    table = Table(title=f"{escape(model.name)}  {model.model.hex()[:12]}…  {state}", title_justify="left")
    for name in ("node", "peer", "blocks", "", "state", "ms/token", "KV free", "sessions", "on"):
        table.add_column(name)
    for node in model.nodes:
        announced, status = node.announcement, node.status
        table.add_row(
            escape(status.name) if status else "?",
            f"…{peer_id(announced.node)[-8:]}",
            f"{announced.start}:{announced.stop}",
            bar(announced.start, announced.stop, model.blocks),
            node.state,
            f"{announced.decode_us / 1e3:.1f}" if announced.decode_us else "?",
            f"{status.kv_free}/{status.kv_total}" if status else "?",
            str(status.sessions) if status else "?",
            escape(f"{status.device if status else '?'}, {announced.profile.name.lower()}"),
        )
    table.caption = f"nodes per block: {' '.join(map(str, coverage))}" if len(coverage) <= 40 else None
    return table


def bar(start: int, stop: int, blocks: int, width: int = 24) -> str:
    """A span within the model, to scale."""
    scale = min(width, blocks)
    left, right = start * scale // blocks, max(stop * scale // blocks, start * scale // blocks + 1)
    return f"[dim]{'·' * left}[/][yellow]{'━' * (right - left)}[/][dim]{'·' * (scale - right)}[/]"
