"""`nectar node`, `nectar node status`"""

import dataclasses
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from nectar_swarm.lean import importing

from nectar import __version__
from nectar.cli import options
from nectar.cli.earnings import status
from nectar.cli.output import configure_logging, emit, say
from nectar.cli.service import serve
from nectar.cli.settings import option
from nectar.home import data_folder

if TYPE_CHECKING:
    from nectar_node.node import Serving
    from nectar_protocol.identity import Identity, PublicKey


@click.group(invoke_without_command=True, short_help="Serve blocks of a model; show what that earns.")
@options.optional_model
@options.revision
@options.all_of(options.hub)
@options.initial_peers
@option("--blocks", metavar="START:STOP", help="Serve these blocks; by default those that the swarm lacks.")
@option("--max-blocks", type=click.IntRange(1), help="Serve at most so many blocks; by default what memory holds.")
@option(
    "--device", default="auto", show_default=True, help="auto, cpu, mps, cuda, cuda:N, or cuda:0,cuda:1 for several."
)
@option("--profile", default="auto", show_default=True, help="Keep weights as auto, f32, bf16, fp16, int8 or nf4.")
@option("--threads", type=click.IntRange(1), help="CPU threads to compute with; by default PyTorch's choice.")
@option("--kv-tokens", type=click.IntRange(1), default=16_384, show_default=True, help="Positions of KV to promise.")
@option(
    "--history-gib",
    type=click.FloatRange(0.001),
    default=8.0,
    show_default=True,
    help="GiB of sessions' histories to keep, in memory and in the temporary folder.",
)
@options.all_of(options.listen)
@option(
    "--reachability",
    type=click.Choice(["auto", "public", "private"]),
    default="auto",
    show_default=True,
    help="Can others dial this node? auto asks the initial peers to try; private is served through relays.",
)
@options.own_key
@option("--name", default=platform.node, help="What to call this node; by default the machine's name.")
@options.allowed_peers
@option(
    "--drain",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for sessions on leaving.",
)
@options.ledger
@option("--owner", metavar="ACCOUNT", help="The account that earns, by its public key in hex.")
@option(
    "--owner-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The account's own key file, if it is on this machine: the node then binds itself.",
)
@option(
    "--unmetered",
    type=click.Choice(["serve", "refuse"]),
    default="serve",
    show_default=True,
    help="Sessions that nobody pays for, in the free class or not at all.",
)
@options.link_delay_ms
@click.option("--pace", type=click.FloatRange(1), default=1.0, hidden=True, help="Announce and move so much faster.")
@click.option("--until-eof", is_flag=True, hidden=True, help="Leave when standard input ends, as a child process does.")
@options.json_output
@options.verbose
def command(
    model: str | None,
    revision: str,
    initial_peers: tuple[str, ...],
    host: str,
    port: int,
    announce: tuple[str, ...],
    reachability: str,
    key: Path | None,
    allowed_peers: tuple[str, ...],
    ledger: str | None,
    owner: str | None,
    owner_key: Path | None,
    unmetered: str,
    max_disk_bytes: int | None,
    offline: bool,
    history_gib: float,
    drain: float,
    link_delay_ms: float,
    pace: float,
    until_eof: bool,
    as_json: bool,
    verbose: int,
    **settings: Any,
) -> None:
    """Serve blocks of a model.

    Without --initial-peers the node starts a swarm of its own, and prints the line with which others join it. Ctrl-C
    lets its sessions move elsewhere and leaves; a second one leaves at once.

    With --ledger it takes credits for what it serves, once it is bound to the account of its --owner.
    """
    configure_logging(verbose)
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        return
    if model is None:
        raise click.MissingParameter(ctx=context, param=next(p for p in context.command.params if p.name == "model"))
    if reachability == "private" and (announce or not initial_peers):
        raise click.UsageError("a private node needs --initial-peers to relay for it, and has nothing to --announce")
    peers, allowed = options.parse_peers(initial_peers), options.parse_allowed(allowed_peers)
    account, owner_identity = parse_owner(ledger, owner, owner_key, unmetered)
    if not as_json:
        say("loading …")
    from nectar_swarm.hub import HubAccess
    from nectar_swarm.source import open_source

    # Before PyTorch is imported, which takes seconds.
    source = open_source(model, revision, HubAccess(offline=offline, max_disk_bytes=max_disk_bytes))
    with importing():
        from nectar_node.announcer import Pace
        from nectar_node.node import Node, NodeSettings
        from nectar_node.till.courier import Rounds
        from nectar_node.till.office import Ledger
        from nectar_node.till.registrar import ROUND_S
        from nectar_swarm.host import Listen
        from nectar_swarm.reachability import Reachability

    node = Node(
        NodeSettings(
            source,
            key_file=key or data_folder() / "node.key",
            version=__version__,
            listen=Listen(host, port, announce),
            reachability=Reachability(reachability),
            initial_peers=peers,
            allowed=allowed,
            history_bytes=int(history_gib * 2**30),
            drain_s=drain,
            link_delay_s=link_delay_ms / 1e3,
            pace=Pace().times(pace),
            ledger=None
            if ledger is None
            else Ledger(ledger, account, owner_identity, unmetered == "serve", ROUND_S / pace, Rounds().times(pace)),
            **settings,
        ),
        lambda serving: tell_json(serving) if as_json else tell(serving, new_swarm=not peers),
        say,
    )
    serve(node.run, until_eof=until_eof)


command.add_command(status)


def parse_owner(
    ledger: str | None, owner: str | None, owner_key: Path | None, unmetered: str
) -> "tuple[PublicKey | None, Identity | None]":
    """The account that earns, and its key if that is at hand. Raises click.UsageError, SwarmError."""
    from nectar_protocol.errors import IdentityError
    from nectar_protocol.identity import public_key
    from nectar_swarm.keyfile import load_key

    if ledger is None and (owner or owner_key or unmetered == "refuse"):
        raise click.UsageError("--owner, --owner-key and --unmetered refuse need the --ledger that they are for")
    identity = None if owner_key is None else load_key(owner_key)
    try:
        account = None if owner is None else public_key(bytes.fromhex(owner))
    except (ValueError, IdentityError) as error:
        raise click.UsageError(f"--owner: an account is a public key, 64 digits in hex ({error})") from error
    if account is not None and identity is not None and account != identity.public:
        raise click.UsageError(f"--owner-key is the key of {identity.public.hex()}, and --owner names another account")
    if account is None and identity is not None:
        account = identity.public
    return account, identity


def tell_json(serving: "Serving") -> None:
    fields = dataclasses.asdict(serving)
    addresses = [f"{address}/p2p/{serving.peer}" for address in serving.addresses]
    emit(event="serving", pid=os.getpid(), **fields | {"addresses": addresses})


def tell(serving: "Serving", new_swarm: bool) -> None:
    say(
        f"serving blocks {serving.start}:{serving.stop} of {serving.blocks} of {serving.model} on {serving.device} "
        f"in {serving.profile}, {serving.decode_ms:.1f} ms a token"
    )
    address = f"{serving.addresses[0]}/p2p/{serving.peer}" if serving.addresses else serving.peer
    if new_swarm:
        say("this node started a swarm; others join it with:")
        click.echo(f"nectar swarm join {address}")
    else:
        click.echo(address)
