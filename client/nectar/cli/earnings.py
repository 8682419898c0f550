"""`nectar node status`"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.output import configure_logging, emit, say
from nectar.home import data_folder

if TYPE_CHECKING:
    from nectar_node.till.earnings import Paid, Served


@click.command(short_help="What a node has served and earned.")
@options.own_key
@options.ledger
@options.json_output
@options.verbose
def status(key: Path | None, ledger: str | None, as_json: bool, verbose: int) -> None:
    """What the node with this key has served and earned, by its own file and by its ledger.

    The node may be running meanwhile. Without --ledger only its own file is asked.
    """
    configure_logging(verbose)
    from nectar_ledger_client.client import LedgerClient
    from nectar_node.till.earnings import Paid, Served
    from nectar_node.till.facts import Facts
    from nectar_node.till.spool import read_spool, spool_path
    from nectar_swarm.keyfile import load_key

    key_file = key or data_folder() / "node.key"
    node = load_key(key_file).public
    spool = read_spool(spool_path(key_file))
    try:
        served, facts = Served.of(spool), Facts.load(spool.facts, spool.save, b"")
    finally:
        spool.close()
    paid: Paid | None = None
    if ledger is not None:
        with LedgerClient(ledger, None if facts.ledger is None else facts.ledger.ledger) as client:
            paid = Paid.ask(client, node)
    if as_json:
        known = None if facts.ledger is None else facts.ledger.ledger.hex()
        told = None if paid is None else paid.as_json()
        emit(node=node.hex(), ledger=known, binding=facts.binding, **asdict(served), paid=told)
    else:
        tell(served, paid)
        if facts.binding and (facts.payee is None):
            say(f"not bound yet; on its owner's machine: nectar wallet bind {facts.binding}")


def tell(served: "Served", paid: "Paid | None") -> None:
    from nectar_protocol.money import format_credits

    click.echo(f"served    {served.sessions} sessions under holds: {served.tokens} tokens, {served.units} units")
    click.echo(f"earned    {format_credits(served.earned_ucr)} credits, by receipts that both have signed")
    click.echo(f"unposted  {format_credits(served.unposted_ucr)} credits, in {served.unposted} receipts")
    for reason in served.refused:
        click.echo(f"refused   {reason}")
    if paid is None:
        return
    if paid.payee is None:
        click.echo("the ledger knows no account that this node earns for")
        return
    click.echo(f"pending   {format_credits(paid.pending_ucr)} credits, until their batches are judged")
    click.echo(f"released  {format_credits(paid.released_ucr)} credits, to {paid.payee.hex()}")
    if paid.burned_ucr:
        click.echo(f"burned    {format_credits(paid.burned_ucr)} credits, in batches that failed")
