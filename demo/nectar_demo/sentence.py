"""The first scene: a sentence through the swarm, one of whose nodes is killed in the middle of it."""

import time
from dataclasses import dataclass
from typing import Any

from nectar_swarm.quiet import quiet_transformers
from rich.console import Console
from rich.text import Text
from transformers import AutoModelForCausalLM, AutoTokenizer

from nectar_demo import MODEL_FOLDER
from nectar_demo.cast import Cast
from nectar_demo.errors import DemoError

NEW_TOKENS = 72
KILL_AT = 24
WARM_UP = 8

Route = list[dict[str, Any]]


@dataclass(frozen=True)
class Sentence:
    """What was seen, all of it in this run."""

    text: str
    identical_to_local: bool
    killed: str
    killed_at_token: int
    route_before: Route
    route_after: Route
    stall_ms: float
    swarm_tokens_per_s: float
    local_tokens_per_s: float


def tokenize(prompt: str) -> tuple[Any, Any]:
    """The tokenizer of the demo's model, and the prompt's token IDs. Raises DemoError for an empty one."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    if not ids.shape[1]:
        raise DemoError("the prompt is empty; give a few words with --prompt")
    return tokenizer, ids


def generate_alone(ids: Any) -> tuple[Any, float]:
    """What the whole model says on this machine, and the seconds that it took."""
    import torch

    with quiet_transformers():
        local = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32).eval()
    local.generate(ids, max_new_tokens=WARM_UP, do_sample=False)
    started_s = time.perf_counter()
    out = local.generate(ids, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
    return out, time.perf_counter() - started_s


def run_sentence(prompt: str, model: Any, cast: Cast, console: Console) -> tuple[Sentence, Text]:
    """Generate through the swarm, kill the last node of the route on the way, and compare with this machine alone.

    Returns what was seen, and the sentence as it stood on the screen.
    """
    import torch

    tokenizer, ids = tokenize(prompt)
    expected, local_s = generate_alone(ids)
    model.generate(ids, max_new_tokens=WARM_UP, do_sample=False)
    with model.session(ids.shape[1] + NEW_TOKENS) as session:
        show = Show(tokenizer, session, cast, console)
        out = model.generate(
            ids, session=session, streamer=show, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
        )
        sentence = Sentence(
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
    return sentence, show.transcript


class Show:
    """A streamer that prints tokens as they come, kills a node at the 24th, and keeps each token's time."""

    def __init__(self, tokenizer: Any, session: Any, cast: Cast, console: Console) -> None:
        self.tokenizer, self.session, self.cast, self.console = tokenizer, session, cast, console
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
        victim = next(node for node in self.cast.nodes if node.peer == self.session.route[-1].peer)
        self.killed = victim.name
        self._show(f" ⚡ {victim.name} is killed (kill -9) ", "bold red")
        victim.kill()

    def _show(self, text: str, style: str) -> None:
        self.console.print(Text(text, style), end="", soft_wrap=True)
        self.transcript.append(text, style)

    def named_route(self) -> Route:
        names = self.cast.names()
        return [{"node": names[span.peer], "start": span.start, "stop": span.stop} for span in self.session.route]

    def tokens_per_s(self) -> float:
        """Of undisturbed tokens; the first, which holds the prompt and the opening, and the stall are left out."""
        usual = [time_s for at, time_s in enumerate(self.times_s) if at not in (0, KILL_AT)]
        return len(usual) / sum(usual)
