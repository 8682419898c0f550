"""`nectar ledger grant`, `nectar ledger key set|revoke`"""

from typing import Any

import click

from nectar.cli import options
from nectar.cli.ledger import place
from nectar.cli.ledger.counter import open_desk
from nectar.cli.ledger.keyname import parse_key
from nectar.cli.output import emit

PURPOSES = ("operator", "policy", "holds", "log", "auditor", "anchor")


@click.command(short_help="Emit credits to an account.")
@click.argument("account")
@click.argument("credits")
@place.writable
@options.json_output
def grant(account: str, credits: str, as_json: bool, **where: Any) -> None:
    """Emit CREDITS (12, 0.5) to ACCOUNT (a public key or a peer ID), within what the policy allows in an epoch."""
    from nectar_protocol.commands import Grant
    from nectar_protocol.errors import MalformedError
    from nectar_protocol.money import format_credits, parse_credits

    key = parse_key(account)
    try:
        amount_ucr = parse_credits(credits)
    except MalformedError as error:
        raise click.UsageError(str(error)) from error
    with open_desk(**where) as desk:
        index = desk.issue(Grant, "operator", account=key, amount_ucr=amount_ucr)
    if as_json:
        emit(index=index, account=key.hex(), amount_ucr=str(amount_ucr))
    else:
        click.echo(f"{format_credits(amount_ucr)} credits to {key.hex()}, entry {index}")


@click.group(short_help="Let a key sign for a purpose, or no longer.")
def key() -> None:
    """The keys that may sign for a ledger's operator. What a revoked one has signed stays."""


@key.command("set")
@click.argument("name", metavar="KEY")
@click.argument("purpose", type=click.Choice(PURPOSES))
@place.writable
@options.json_output
def set_(name: str, purpose: str, as_json: bool, **where: Any) -> None:
    """Let KEY (a public key or a peer ID) sign for PURPOSE."""
    put_key(name, purpose, "active", as_json, **where)


@key.command()
@click.argument("name", metavar="KEY")
@click.argument("purpose", type=click.Choice(PURPOSES))
@place.writable
@options.json_output
def revoke(name: str, purpose: str, as_json: bool, **where: Any) -> None:
    """Let KEY sign for PURPOSE no longer."""
    put_key(name, purpose, "revoked", as_json, **where)


def put_key(name: str, purpose: str, state: str, as_json: bool, **where: Any) -> None:
    from nectar_protocol.commands import KeyPurpose, KeyState, SetKey

    which, becomes = KeyPurpose[purpose.upper()], KeyState[state.upper()]
    key = parse_key(name)
    with open_desk(**where) as desk:
        index = desk.issue(SetKey, "operator", key=key, purpose=which, state=becomes)
    if as_json:
        emit(index=index, key=key.hex(), purpose=purpose, state=state)
    elif index is None:
        click.echo(f"{key.hex()} was {state} for {purpose} already")
    else:
        click.echo(f"{key.hex()} is {state} for {purpose}, entry {index}")
