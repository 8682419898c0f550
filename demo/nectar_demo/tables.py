"""What the demo has seen, as tables."""

from nectar_protocol.money import format_credits
from rich.console import Group
from rich.table import Table
from rich.text import Text

from nectar_demo.books import Books
from nectar_demo.sentence import Route, Sentence
from nectar_demo.spending import Spending


def draw_sentence(sentence: Sentence) -> Table:
    def through(route: Route) -> str:
        return " → ".join(f"{hop['node']} {hop['start']}:{hop['stop']}" for hop in route)

    table = _pairs("What happened")
    table.add_row("route before", through(sentence.route_before))
    table.add_row("killed", f"{sentence.killed}, after token {sentence.killed_at_token}")
    table.add_row("route after", through(sentence.route_after))
    table.add_row("stall", f"{sentence.stall_ms:.0f} ms (a usual token: {1e3 / sentence.swarm_tokens_per_s:.0f} ms)")
    table.add_row("through the swarm", f"{sentence.swarm_tokens_per_s:.0f} tokens/s")
    table.add_row("on this machine alone", f"{sentence.local_tokens_per_s:.0f} tokens/s")
    same = "[green]token for token the same[/]" if sentence.identical_to_local else "[red]different[/]"
    table.add_row("text against alone", same)
    return table


def draw_spending(spending: Spending, crowd_s: float, users: int) -> Table:
    """How long a page took, by class."""
    longest = max(spending.paid_s, spending.free_s, crowd_s)
    table = Table(title="A page read and continued, by class", title_justify="left", show_header=False)
    for who, took_s, style in (
        (f"{spending.who}, weight {spending.weight}", spending.paid_s, "green"),
        ("a passer-by, free", spending.free_s, "yellow"),
        (f"the crowd of {users}, free", crowd_s, "yellow"),
    ):
        bar = Text("━" * max(1, round(40 * took_s / longest)), style)
        table.add_row(who, Text(f"{took_s:.1f} s", justify="right"), bar)
    return table


def draw_books(books: Books) -> Group:
    """Who has what, that it adds up, and where that stands for good."""
    table = Table(title="The ledger's books, in credits", title_justify="left")
    for name in ("owner", "earned by serving", "spent", "account", "purse"):
        table.add_column(name, justify="left" if name == "owner" else "right")
    for owner in books.owners:
        amounts = (owner.earned_ucr, owner.spent_ucr, owner.balance_ucr, owner.purse_ucr)
        table.add_row(owner.name, *(format_credits(amount) for amount in amounts))
    supply = books.supply.supply
    sums = _pairs("And that adds up")
    identity = f"{format_credits(supply.emitted_ucr)} emitted − {format_credits(supply.burned_ucr)} burned"
    sign = "[green]=[/]" if books.balanced else "[red]≠[/]"
    sums.add_row("supply", f"{identity} {sign} {format_credits(books.balances_ucr)} in all balances")
    sums.add_row("the log's checkpoint", f"{books.origin}, {books.size} entries\n{books.root}")
    return Group(table, sums)


def _pairs(title: str) -> Table:
    return Table(show_header=False, title=title, title_justify="left")
