"""`nectar demo`: three nodes on this machine, a sentence through them, one of them killed, the sentence finished."""

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nectar.cli.output import emit, stdout
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nectar_demo import MODEL_FOLDER
from nectar_demo.errors import DemoError
from nectar_demo.processes import NodeProcess

NODES = (("ada", "0:4"), ("ben", "4:8"), ("cleo", "2:8"))
NEW_TOKENS = 72
KILL_AT = 24
WARM_UP = 8
PICTURE_WIDTH = 104
START_TITLE = "[bold]Starting a swarm of three nodes[/], each a process of its own, on loopback …"
SENTENCE_TITLE = "[bold]One sentence through the swarm[/], greedily, token by token:"

Route = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What the demo measured, all of it in this run."""

    text: str
    identical_to_local: bool
    killed: str
    killed_at_token: int
    route_before: Route
    route_after: Route
    stall_ms: float
    swarm_tokens_per_s: float
    local_tokens_per_s: float


def run_demo(prompt: str, *, keep: bool = False, as_json: bool = False, picture: Path | None = None) -> None:
    """Raises DemoError if a node does not start; leaves no process behind, whatever happens.

    `picture` is where to save what was on the screen, as SVG.
    """
    console = Console(stderr=True, highlight=False) if as_json else stdout
    folder = Path(tempfile.mkdtemp(prefix="nectar-demo-"))
    nodes: list[NodeProcess] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        start_nodes(nodes, folder, console)
        outcome, sentence = run_sentence(prompt, nodes, console)
        if as_json:
            emit(**asdict(outcome))
        else:
            console.print(draw(outcome))
        if picture is not None:
            save_picture(picture, nodes, sentence, outcome)
        if keep:
            wait_for_interrupt(nodes, console)
    finally:
        for node in nodes:
            node.stop()
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def start_nodes(nodes: list[NodeProcess], folder: Path, console: Console) -> None:
    """The first node starts a swarm; the others join it."""
    console.print(START_TITLE)
    peers: list[str] = []
    for name, blocks in NODES:
        nodes.append(NodeProcess(name, folder, MODEL_FOLDER, blocks, peers))
        if not peers:
            peers.append(nodes[0].wait().address)
    for node in nodes:
        if not node.serving:
            node.wait()
        console.print(introduce(node))


def introduce(node: NodeProcess) -> str:
    """A line about a node, with its blocks drawn to scale."""
    start, stop = node.serving["start"], node.serving["stop"]
    drawn = "·" * start + "━" * (stop - start) + "·" * (node.serving["blocks"] - stop)
    return f"  {node.name:5} serves blocks {node.blocks}  [yellow]{drawn}[/]  [dim]{node.peer}[/]"


def run_sentence(prompt: str, nodes: list[NodeProcess], console: Console) -> tuple[Outcome, Text]:
    """Generate through the swarm, kill the last node of the route on the way, and compare with this machine alone.

    Returns what was measured, and the sentence as it stood on the screen.
    """
    import torch
    from nectar.connection import Connection
    from nectar.model import AutoDistributedModelForCausalLM
    from nectar_swarm.quiet import quiet_transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    if not ids.shape[1]:
        raise DemoError("the prompt is empty; give a few words with --prompt")
    settings = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    with quiet_transformers():
        local = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32).eval()
    local.generate(ids, max_new_tokens=WARM_UP, do_sample=False)
    started_s = time.perf_counter()
    expected = local.generate(ids, **settings)
    local_s = time.perf_counter() - started_s

    connection = Connection.open([node.address for node in nodes])
    try:
        model = AutoDistributedModelForCausalLM.from_pretrained(str(MODEL_FOLDER), connection=connection)
        model.generate(ids, max_new_tokens=WARM_UP, do_sample=False)
        with model.session(ids.shape[1] + NEW_TOKENS) as session:
            console.print(f"\n{SENTENCE_TITLE}\n")
            show = Show(tokenizer, session, nodes, console)
            out = model.generate(ids, session=session, streamer=show, **settings)
            outcome = Outcome(
                text=tokenizer.decode(out[0], skip_special_tokens=True),
                identical_to_local=bool(torch.equal(out, expected)),
                killed=show.killed,
                killed_at_token=KILL_AT,
                route_before=show.route_before,
                route_after=show.named_route(),
                stall_ms=round(show.times_s[KILL_AT] * 1e3, 1),
                swarm_tokens_per_s=round(show.tokens_per_s(), 1),
                local_tokens_per_s=round(NEW_TOKENS / local_s, 1),
            )
            return outcome, show.transcript
    finally:
        connection.close()


class Show:
    """A streamer that prints tokens as they come, kills a node at the 24th, and keeps each token's time."""

    def __init__(self, tokenizer: Any, session: Any, nodes: list[NodeProcess], console: Console) -> None:
        self.tokenizer, self.session, self.nodes, self.console = tokenizer, session, nodes, console
        self.times_s: list[float] = []
        self.killed = ""
        self.route_before: Route = []
        self.transcript = Text()
        self._ids: list[int] = []
        self._shown = ""
        self._last_s = 0.0
        self._prompt_done = False

    def put(self, value: Any) -> None:
        now_s = time.perf_counter()
        self._ids += value.flatten().tolist()
        if self._prompt_done:
            self.times_s.append(now_s - self._last_s)
        self._print("bold" if not self._prompt_done else "")
        self._prompt_done = True
        if len(self.times_s) == KILL_AT:
            self._kill()
        self._last_s = time.perf_counter()

    def end(self) -> None:
        self.console.print("\n")

    def _print(self, style: str) -> None:
        text = self.tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # a character whose bytes have not all come
            self._show(text[len(self._shown) :], style)
            self._shown = text

    def _kill(self) -> None:
        self.route_before = self.named_route()
        victim = next(node for node in self.nodes if node.peer == self.session.route[-1].peer)
        self.killed = victim.name
        self._show(f" ⚡ {victim.name} is killed (kill -9) ", "bold red")
        victim.kill()

    def _show(self, text: str, style: str) -> None:
        self.console.print(Text(text, style), end="", soft_wrap=True)
        self.transcript.append(text, style)

    def named_route(self) -> Route:
        names = {node.peer: node.name for node in self.nodes}
        return [{"node": names[span.peer], "start": span.start, "stop": span.stop} for span in self.session.route]

    def tokens_per_s(self) -> float:
        """Of undisturbed tokens; the first, which holds the prompt and the opening, and the stall are left out."""
        usual = [time_s for at, time_s in enumerate(self.times_s) if at not in (0, KILL_AT)]
        return len(usual) / sum(usual)


def draw(outcome: Outcome) -> Table:
    """The figures of this run."""

    def through(route: Route) -> str:
        return " → ".join(f"{hop['node']} {hop['start']}:{hop['stop']}" for hop in route)

    table = Table(show_header=False, title="What happened", title_justify="left")
    table.add_row("route before", through(outcome.route_before))
    table.add_row("killed", f"{outcome.killed}, after token {outcome.killed_at_token}")
    table.add_row("route after", through(outcome.route_after))
    table.add_row("stall", f"{outcome.stall_ms:.0f} ms (a usual token: {1e3 / outcome.swarm_tokens_per_s:.0f} ms)")
    table.add_row("through the swarm", f"{outcome.swarm_tokens_per_s:.0f} tokens/s")
    table.add_row("on this machine alone", f"{outcome.local_tokens_per_s:.0f} tokens/s")
    same = "[green]token for token the same[/]" if outcome.identical_to_local else "[red]different[/]"
    table.add_row("text against alone", same)
    return table


def save_picture(path: Path, nodes: list[NodeProcess], sentence: Text, outcome: Outcome) -> None:
    """What was on the screen, as SVG in whatever monospaced font the reader has."""
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=PICTURE_WIDTH, force_terminal=True, highlight=False)
        console.print(START_TITLE)
        for node in nodes:
            console.print(introduce(node))
        console.print(f"\n{SENTENCE_TITLE}\n")
        console.print(sentence)
        console.print()
        console.print(draw(outcome))
        path.write_text(re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="nectar demo"), flags=re.DOTALL))


def wait_for_interrupt(nodes: list[NodeProcess], console: Console) -> None:
    """Leave the swarm to the user until Ctrl-C."""
    address = next(node.address for node in nodes if node.alive)
    console.print("\nThe swarm runs on until Ctrl-C. In another terminal:\n", soft_wrap=True)
    console.print(f"  nectar swarm -p {address}", soft_wrap=True)
    console.print(f'  nectar generate "A function is" -m {MODEL_FOLDER} -p {address}', soft_wrap=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopping …")
