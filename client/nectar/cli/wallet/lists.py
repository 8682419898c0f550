"""`nectar wallet statement`, `nectar wallet holds`"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.output import emit
from nectar.cli.wallet import place

if TYPE_CHECKING:
    from nectar_ledger_client.accounts import PurseLine, StatementLine

most = click.option("--most", type=click.IntRange(1), default=50, show_default=True, help="Show so many, newest first.")


@click.command(short_help="How the balance, or the purse, moved.")
@click.option("--purse", "of_purse", is_flag=True, help="The purse's movements, which only you can ask for.")
@most
@place.both
@options.json_output
def statement(of_purse: bool, most: int, ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    """Show how the account's balance moved, or with --purse its purse."""
    with place.open_wallet(ledger, wallet) as opened:
        lines: Iterator[PurseLine | StatementLine] = opened.purse_statement() if of_purse else opened.statement()
        for line in islice(lines, most):
            hold = getattr(line, "hold", None)
            if as_json:
                emit(
                    index=line.index, time_ms=line.time_ms, code=line.code, amount_ucr=str(line.amount_ucr),
                    balance_ucr=str(line.balance_ucr), hold=None if hold is None else hold.hex(),
                )  # fmt: skip
            else:
                shown = f"  {hold.hex()[:16]}…" if hold else ""
                click.echo(
                    f"{_when(line.time_ms)}  {_signed(line.amount_ucr):>18}  {_signed(line.balance_ucr)[1:]:>18}  "
                    f"{line.code}{shown}"
                )


@click.command(short_help="The holds that the purse paid for.")
@most
@place.both
@options.json_output
def holds(most: int, ledger: str | None, wallet: Path | None, as_json: bool) -> None:
    """Show the sessions that were paid from the purse, with what each node did for them."""
    from nectar_protocol.money import format_credits

    with place.open_wallet(ledger, wallet) as opened:
        for hold in islice(opened.holds(), most):
            units = sum(line.units for line in hold.lines)
            if as_json:
                lines = [{"node": line.node.hex(), "units": line.units, "final": line.final} for line in hold.lines]
                emit(
                    hold=hold.id.hex(), state=hold.state, weight=hold.weight, units=units, left_ucr=str(hold.left_ucr),
                    expires_ms=hold.expires_ms, lines=lines,
                )  # fmt: skip
            else:
                click.echo(
                    f"{hold.id.hex()[:16]}…  {hold.state:8}  weight {hold.weight}  {units} units on "
                    f"{len(hold.lines)} nodes, {format_credits(hold.left_ucr)} credits set aside"
                )


def _when(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _signed(ucr: int) -> str:
    from nectar_protocol.money import format_credits

    return ("-" if ucr < 0 else "+") + format_credits(abs(ucr))
