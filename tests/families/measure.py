"""What is known of a family once it was tried: a row of the page docs/families.md."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from nectar.errors import RequestError

from benchmarks.tokens import WrongTokensError, count_ties
from tests.families import blocks, modes
from tests.families.checkpoints import write
from tests.families.configs import ALL, BLOCKS
from tests.families.swarm import two_nodes

WAYS = {"PackedRunner": "packed", "PaddedRunner": "padded"} | dict.fromkeys(
    ("SingleRunner", "TokenRunner"), "one at a time"
)


@dataclass(frozen=True)
class Row:
    """`difference` of the blocks' outputs to the whole model's; `refused` modes that Transformers or Nectar refuses for
    such a model, those whose tokens were `wrong`, and those where they were right and the whole model's with a cache
    were not its own without one: `mended`."""

    family: str
    difference: float
    runner: str
    right: tuple[str, ...]
    refused: tuple[str, ...]
    wrong: tuple[str, ...]
    mended: tuple[str, ...]

    def __str__(self) -> str:
        kind = ALL[self.family]().model_type
        name = f"`{kind}`" if kind == self.family else f"`{kind}` ({self.family.removeprefix(kind).strip('_')})"
        way = WAYS[self.runner]
        without = f"; refused: {', '.join(self.refused)}" if self.refused else ""
        without += f"; Transformers' own cache is wrong: {', '.join(self.mended)}" if self.mended else ""
        without += f"; **other tokens**: {', '.join(self.wrong)}" if self.wrong else ""
        return f"| {name} | {self.difference:g} | {way} | {len(self.right)} of {len(modes.MODES)}{without} |"


@contextmanager
def trial(family: str) -> Iterator[tuple[Path, Any]]:
    """A family's checkpoint and the whole model of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = write(family, Path(name) / family)
        whole = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        whole.generation_config.eos_token_id = None
        yield folder, whole.eval().requires_grad_(False)


def measure(family: str) -> Row:
    """Try a family: a span of it, and every mode of decoding through two nodes."""
    right, refused, wrong, mended = [], [], [], []
    with trial(family) as (folder, whole):
        span = blocks.load_span(folder)
        difference, runner = blocks.difference(span, whole), type(blocks.runner_of(span)).__name__
        with two_nodes(folder, folder.parent, BLOCKS) as remote:
            remote.generation_config.eos_token_id = None
            for mode in modes.MODES:
                try:
                    expected = modes.run(mode, whole, whole)
                except ValueError:  # assisted decoding of recurrent state, say
                    refused.append(mode)
                    if _generates(mode, remote, whole):
                        wrong.append(mode)
                    continue
                try:
                    got = modes.run(mode, remote, whole)
                except RequestError:
                    refused.append(mode)
                    continue
                if torch.equal(got, expected):
                    right.append(mode)
                else:
                    same = torch.equal(got, modes.run(mode, whole, whole, use_cache=False))
                    (mended if same else wrong).append(mode)
    return Row(family, difference, runner, *map(tuple, (right, refused, wrong, mended)))


def _generates(mode: str, model: Any, whole: Any) -> bool:
    try:
        modes.run(mode, model, whole)
    except ValueError:
        return False
    return True


def beside_others(family: str) -> tuple[int, int]:
    """(tokens, ties) of sessions that are packed with others'. Raises WrongTokensError for a token that is neither
    the whole model's nor a tie."""
    tokens = ties = 0
    with trial(family) as (folder, whole), two_nodes(folder, folder.parent, BLOCKS) as remote, _others(remote):
        remote.generation_config.eos_token_id = None
        for seed in range(4):
            ids = modes.prompt(3, seed)
            options = {"max_new_tokens": 2 * modes.NEW, "do_sample": False, "use_cache": True}
            expected, got = (model.generate(ids, **options) for model in (whole, remote))
            ties += count_ties(whole, got, modes.PROMPT, expected)
            tokens += got[:, modes.PROMPT :].numel()
        for mode in modes.MODES:  # without a margin for ties: what is not the same fails
            expected, got = (modes.run(mode, model, whole) for model in (whole, remote))
            if not torch.equal(expected, got):
                raise WrongTokensError(f"{family}, {mode}, beside others: {got.tolist()}, not {expected.tolist()}")
            tokens += got[:, modes.PROMPT :].numel()
    return tokens, ties


@contextmanager
def _others(remote: Any) -> Iterator[None]:
    """Two other sessions that generate all the while."""
    over = threading.Event()

    def generate(seed: int) -> None:
        while not over.is_set():
            remote.generate(modes.prompt(2, seed, 20), max_new_tokens=12, do_sample=False, use_cache=True)

    threads = [threading.Thread(target=generate, args=(seed,)) for seed in (20, 21)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
