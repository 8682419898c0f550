"""`nectar wallet fund`, `nectar wallet withdraw`, `nectar wallet bind`"""

from pathlib import Path

import click

from nectar.cli import options
from nectar.cli.output import emit
from nectar.cli.wallet import place


@click.command(short_help="Move credits from the balance into the purse.")
@click.argument("amount")
@place.both
@options.json_output
def fund(amount: str, ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    """Move AMOUNT credits (a round one: 1, 25) from the public balance into the purse, from which sessions are paid.

    Sessions do so by themselves when the purse is short; a larger amount at another time tells others less.
    """
    _move("fund", amount, ledger, wallet, as_json)


@click.command(short_help="Move credits from the purse back into the balance.")
@click.argument("amount")
@place.both
@options.json_output
def withdraw(amount: str, ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    """Move AMOUNT credits (a round one) from the purse back into the public balance."""
    _move("withdraw", amount, ledger, wallet, as_json)


@click.command(short_help="Be paid for a node's work.")
@click.argument("request")
@place.both
@options.json_output
def bind(request: str, ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    """Have a node's earnings come to this account. REQUEST is the line that the node prints (nectar node --owner)."""
    with place.open_wallet(ledger, wallet) as opened:
        node, index = opened.bind(request)
    if as_json:
        emit(node=node.hex(), payee=opened.account.hex(), index=index)
    else:
        click.echo(f"node {node.hex()} earns for {opened.account.hex()}")


def _move(way: str, amount: str, ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    from nectar_protocol.errors import MalformedError
    from nectar_protocol.money import format_credits, parse_credits

    try:
        amount_ucr = parse_credits(amount)
    except MalformedError as error:
        raise click.UsageError(str(error)) from error
    with place.open_wallet(ledger, wallet) as opened:
        index = opened.fund(amount_ucr) if way == "fund" else opened.withdraw(amount_ucr)
        purse = opened.purse()
    purse_ucr = 0 if purse is None else purse.balance_ucr
    if as_json:
        emit(index=index, amount_ucr=str(amount_ucr), purse_ucr=str(purse_ucr))
    else:
        click.echo(f"the purse has {format_credits(purse_ucr)} credits now")
