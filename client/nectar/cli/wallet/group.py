"""The group of `nectar wallet`, which alone shows the balance."""

from pathlib import Path

import click

from nectar.cli import options
from nectar.cli.output import emit, say
from nectar.cli.wallet import keys, lists, moving, place


@click.group(
    commands={
        "bind": moving.bind,
        "export": keys.export,
        "fund": moving.fund,
        "holds": lists.holds,
        "import": keys.import_,
        "statement": lists.statement,
        "withdraw": moving.withdraw,
    },
    invoke_without_command=True,
    short_help="Show your credits, and move them.",
)
@place.both
@options.json_output
def command(ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    """Show your account's credits; with a command, move them or show how they moved.

    The account is a key file, made on first use: whoever has it has the credits, and losing it is losing them. Its
    balance is public. Its purse, from which sessions are paid, is known to you and the ledger alone.
    """
    if click.get_current_context().invoked_subcommand is None:
        with place.open_wallet(ledger, wallet) as opened:
            balance, purse = opened.balance(), opened.purse()
            account, nodes = opened.account.hex(), [node.node.hex() for node in opened.nodes()] if balance else []
        balance_ucr = 0 if balance is None else balance.balance_ucr
        purse_ucr, open_holds = (0, 0) if purse is None else (purse.balance_ucr, purse.open_holds)
        if as_json:
            emit(
                account=account, balance_ucr=str(balance_ucr), purse_ucr=str(purse_ucr), open_holds=open_holds,
                nodes=nodes, file=str(place.wallet_file(wallet)),
            )  # fmt: skip
        else:
            tell(account, balance_ucr, purse_ucr, open_holds, nodes)


def tell(account: str, balance_ucr: int, purse_ucr: int, open_holds: int, nodes: list[str]) -> None:
    from nectar_protocol.money import format_credits

    click.echo(f"account   {account}")
    click.echo(f"balance   {format_credits(balance_ucr)} credits")
    held = f", beside what {open_holds} open holds have set aside" if open_holds else ""
    click.echo(f"purse     {format_credits(purse_ucr)} credits{held}")
    for node in nodes:
        click.echo(f"node      {node}")
    if not (balance_ucr or purse_ucr or nodes):
        say("no credits yet: serve with nectar node --owner ACCOUNT, or use the free class")
