"""Options that several commands share."""

import re
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nectar.cli.settings import option

if TYPE_CHECKING:
    from nectar_protocol.identity import PeerID
    from nectar_swarm.peeraddress import PeerAddress

Decorator = Callable[[Any], Any]

BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BYTE_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, with a unit if there is one: 200GB, 1.5 TiB. Raises click.BadParameter."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?I?B)?", value.strip().upper())
    size = int(float(found[1]) * BYTE_UNITS.get(found[2] or "", 0)) if found else 0
    if not size:
        raise click.BadParameter(f"{value!r} is not a size; write it as in 200GB or 500MiB")
    return size


model = option("--model", "-m", required=True, help="A model's folder, or its name on the hub.")
optional_model = option("--model", "-m", help="A model's folder, or its name on the hub.")
revision = option("--revision", default="main", show_default=True, help="The hub repository's revision.")
hub = [
    option(
        "--max-disk",
        "max_disk_bytes",
        callback=parse_bytes,
        metavar="SIZE",
        help="Keep the weights fetched from hubs below this, as in 200GB: what was used longest ago makes way.",
    ),
    option("--offline", is_flag=True, help="Ask no hub: load what was fetched before."),
]
initial_peers = option(
    "--initial-peers",
    "-p",
    multiple=True,
    metavar="ADDRESS",
    help="Addresses of peers of the swarm, as they print them: /ip4/…/tcp/…/p2p/12D3…",
)
allowed_peers = option(
    "--allowed-peers",
    multiple=True,
    metavar="PEER",
    help="Peer IDs, or files of them, one a line: talk to no others.",
)
trusted_peers = option(
    "--trusted-peer",
    multiple=True,
    metavar="PEER",
    help="Peer IDs, or files of them, one a line: the first and the last blocks run on no others.",
)
own_key = option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The key file, made if there is none.")
client_key = option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use this key's identity instead of a new one, for swarms that list allowed peers.",
)
# In nectar.toml `ledger_url`, since [ledger] is the table of the commands of that name.
ledger = option(
    "--ledger",
    "--ledger-url",
    "ledger",
    metavar="URL",
    help="The ledger of the swarm's credits: https://ledger.example",
)
wallet = option(
    "--wallet",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Your account's key file, made if there is none; wallet.key in Nectar's own folder by default.",
)
json_output = option("--json", "as_json", is_flag=True, help="Print results as JSON, one object a line.")
verbose = click.option("-v", "--verbose", count=True, help="Log what happens; twice for more.")
listen = [
    option("--host", default="0.0.0.0", show_default=True, help="The address to listen on."),
    option("--port", type=click.IntRange(0, 65535), default=0, help="The TCP port to listen on; any if not given."),
    option("--announce", multiple=True, metavar="ADDRESS", help="What to tell peers instead: /ip4/…/tcp/…"),
]
link_delay_ms = option("--link-delay-ms", type=click.FloatRange(0, 10_000), default=0.0, hidden=True)


def all_of(decorators: Sequence[Decorator]) -> Decorator:
    """Several decorators as one."""
    return lambda function: reduce(lambda inner, decorate: decorate(inner), reversed(decorators), function)


def parse_peer_ids(entries: Sequence[str], flag: str) -> "frozenset[PeerID] | None":
    """A list of peers from peer IDs and files of them; None without any. Raises click.UsageError."""
    from nectar_protocol.errors import IdentityError
    from nectar_protocol.identity import PeerID, parse_peer_id

    if not entries:
        return None
    peers: list[str] = []
    for entry in entries:
        path = Path(entry).expanduser()
        if path.is_file():
            lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
            peers += [line for line in lines if line]
        else:
            peers.append(entry)
    for peer in peers:
        try:
            parse_peer_id(peer)
        except IdentityError as error:
            raise click.UsageError(f"{flag}: {error}, and no file of that name exists") from error
    return frozenset(PeerID(peer) for peer in peers)


def parse_allowed(entries: Sequence[str]) -> "frozenset[PeerID] | None":
    return parse_peer_ids(entries, "--allowed-peers")


def parse_peers(entries: Sequence[str]) -> "tuple[PeerAddress, ...]":
    """Multiaddrs as PeerAddress. Raises click.UsageError."""
    from nectar_protocol.errors import ProtocolError
    from nectar_swarm.peeraddress import PeerAddress

    try:
        return tuple(PeerAddress.parse(entry) for entry in entries)
    except ProtocolError as error:
        raise click.UsageError(f"--initial-peers: {error}") from error


def need_peers(entries: Sequence[str]) -> "tuple[PeerAddress, ...]":
    """Like parse_peers, for commands that cannot do without."""
    if not entries:
        raise click.UsageError(
            "no swarm is named: give --initial-peers ADDRESS as a node prints it, or run `nectar swarm join`"
        )
    return parse_peers(entries)
