"""`nectar demo`: a swarm with a ledger on this machine. It survives a death, earns, spends, and shows its books."""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nectar.cli.output import emit, stdout
from rich.console import Console
from rich.text import Text

from nectar_demo import MODEL_FOLDER
from nectar_demo.books import Books, read_books, wait_for_credits, wait_until_settled
from nectar_demo.cast import NETWORK, NODES, Cast, introductions
from nectar_demo.crowd import Crowd
from nectar_demo.sentence import Sentence, run_sentence, tokenize
from nectar_demo.spending import Spending, spend
from nectar_demo.tables import draw_books, draw_sentence, draw_spending

USERS = 12
PAGE_CHARACTERS = 1_000
NEEDED_UCR = 55_000_000  # for a page at weight 8
EARN_S = 60.0
SPENDER = "ada"
PICTURE_WIDTH = 104
START_TITLE = "[bold]Starting a swarm of three nodes[/], of three owners, and its ledger, all on loopback …"
SENTENCE_TITLE = "[bold]One sentence through the swarm[/], greedily, token by token:"
CROWD_TITLE = f"[bold]A crowd of {USERS} uses the swarm for nothing[/]; its nodes sign for what they serve, and earn …"
SPEND_TITLE = f"[bold]{SPENDER} spends[/], from a folder of its own, in the same crowd …"


@dataclass(frozen=True)
class Outcome:
    """What was seen in this run, and the picture of it."""

    sentence: Sentence
    transcript: Text
    crowd_s: float
    crowd_tokens: int
    spending: Spending
    books: Books


def run_demo(prompt: str, *, keep: bool = False, as_json: bool = False, picture: Path | None = None) -> None:
    """Raises DemoError if something does not start; leaves no process behind, whatever happens.

    `picture` is where to save what was on the screen, as SVG.
    """
    console = Console(stderr=True, highlight=False) if as_json else stdout
    folder = Path(tempfile.mkdtemp(prefix="nectar-demo-"))
    cast = Cast(folder)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        console.print(START_TITLE)
        cast.start(console)
        outcome = play(prompt, cast, console)
        if as_json:
            emit(**told(outcome))
        if picture is not None:
            save_picture(picture, cast, outcome)
        if keep:
            wait_for_interrupt(cast, console)
    finally:
        cast.stop()
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def play(prompt: str, cast: Cast, console: Console) -> Outcome:
    """All scenes, one after the other. Raises DemoError."""
    import torch
    from nectar.connection import Connection
    from nectar.model import AutoDistributedModelForCausalLM

    torch.set_num_threads(1)
    connection = Connection.open(cast.addresses)
    try:
        model = AutoDistributedModelForCausalLM.from_pretrained(
            str(MODEL_FOLDER), connection=connection, ledger=cast.url
        )
        console.print(f"\n{SENTENCE_TITLE}\n")
        sentence, transcript = run_sentence(prompt, model, cast, console)
        console.print(draw_sentence(sentence))
        back = cast.restart(sentence.killed)
        console.print(f"\n{CROWD_TITLE}")
        crowd = Crowd(model, tokenize(page())[1], USERS)
        crowd.start()
        try:
            back.wait()
            wait_for_credits(cast.url, cast.wallet(SPENDER), NEEDED_UCR, EARN_S)
            console.print(f"\n{SPEND_TITLE}")
            since_s = time.perf_counter()
            spending = spend(cast, SPENDER, page())
            crowd_s = crowd.text_s(since_s)
        finally:
            crowd.stop()
        console.print(draw_spending(spending, crowd_s, USERS))
    finally:
        connection.close()
    wait_until_settled(cast.url)
    books = read_books(cast.url, {name: cast.wallet(name) for name, _ in NODES})
    console.print(draw_books(books))
    return Outcome(sentence, transcript, crowd_s, crowd.tokens, spending, books)


def page() -> str:
    """Something to read: Python, which is what the demo's model knows."""
    return Path(__file__).read_text()[:PAGE_CHARACTERS]


def told(outcome: Outcome) -> dict[str, object]:
    """As JSON has it; amounts are µcr in strings."""
    books = outcome.books
    supply = {name: str(value) for name, value in asdict(books.supply.supply).items()}
    owners = {
        owner.name: {"earned_ucr": str(owner.earned_ucr), "has_ucr": str(owner.has_ucr)} for owner in books.owners
    }
    spending = asdict(outcome.spending) | {"spent_ucr": str(outcome.spending.spent_ucr)}
    return asdict(outcome.sentence) | {
        "crowd_tokens": outcome.crowd_tokens,
        "crowd_s": round(outcome.crowd_s, 3),
        "spending": spending,
        "owners": owners,
        "supply": supply,
        "balanced": books.balanced,
        "checkpoint": {"origin": books.origin, "size": books.size, "root": books.root},
    }


def save_picture(path: Path, cast: Cast, outcome: Outcome) -> None:
    """What was on the screen, as SVG in whatever monospaced font the reader has."""
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=PICTURE_WIDTH, force_terminal=True, highlight=False)
        console.print(START_TITLE)
        console.print(f"  ledger of [bold]{NETWORK}[/]")
        for line in introductions(cast.nodes):
            console.print(line)
        console.print(f"\n{SENTENCE_TITLE}\n")
        console.print(outcome.transcript)
        console.print(f"\n{CROWD_TITLE}\n\n{SPEND_TITLE}")
        console.print(draw_spending(outcome.spending, outcome.crowd_s, USERS))
        console.print(draw_books(outcome.books))
        path.write_text(re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="nectar demo"), flags=re.DOTALL))


def wait_for_interrupt(cast: Cast, console: Console) -> None:
    """Leave the swarm to the user until Ctrl-C."""
    wallet = cast.wallet(SPENDER)
    console.print("\nThe swarm runs on until Ctrl-C. In another terminal:\n", soft_wrap=True)
    for line in (
        f"nectar swarm -p {cast.addresses[0]}",
        f'nectar generate "A function is" -m {MODEL_FOLDER} -p {cast.addresses[0]} --ledger {cast.url} '
        f"--weight 8 --wallet {wallet}",
        f"nectar wallet --ledger {cast.url} --wallet {wallet}",
        f"nectar ledger verify --data {cast.folder / 'ledger'}",
    ):
        console.print(f"  {line}", soft_wrap=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopping …")
