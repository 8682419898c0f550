"""How much faster does a draft model make a swarm on long links?

Two nodes, 50 ms on each of the three links. The draft is the whole model itself, on this machine, but it picks its
second choice at a fifth of all positions, drawn from the seed; so it costs as much as a draft may, and agrees 80 % of
the time. Plain and drafted generations take turns; both must give the whole model's tokens.

    python -m benchmarks.speculation [--quick] [--json]
"""

import argparse
import functools
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Key, print_json, print_table
from benchmarks.serving import generate, timed
from benchmarks.swarms import Shape, start_swarms
from benchmarks.tokens import count_ties, random_prompts

LINK_MS, PROMPT, DRAFTED, AGREEMENT = 50.0, 16, 8, 0.8
MAX_POSITIONS = 4096
SHAPE = Shape("tiny", ("0:4", "4:8"), LINK_MS)
KEYS = (
    Key("speculation_ratio", f"tokens/s with {DRAFTED} drafted tokens a step / without, links of 50 ms", 2.5, True),
    Key("draft_agreement", "of the draft's choices, those that are the model's", 0.75, True),
)


@dataclass(frozen=True)
class Scale:
    rounds: int
    tokens: int


FULL, QUICK = Scale(7, 96), Scale(3, 32)


def make_draft(model: Path, seed: int) -> Any:
    """The whole model, but for its choices at a fifth of all positions."""
    from nectar_swarm.cachename import CACHE
    from transformers import LlamaForCausalLM

    differs = torch.rand(MAX_POSITIONS, generator=torch.Generator().manual_seed(seed)) >= AGREEMENT

    class Draft(LlamaForCausalLM):
        @functools.wraps(LlamaForCausalLM.forward)  # generate() looks at the parameters
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            stop = out[CACHE].get_seq_length()
            rows = differs[stop - out.logits.shape[1] : stop]
            best, second = out.logits.topk(2).indices.unbind(-1)
            swapped = out.logits.scatter(-1, best[..., None], out.logits.gather(-1, second[..., None]) - 1)
            out.logits = torch.where(rows[:, None], swapped, out.logits)
            return out

    draft = Draft.from_pretrained(model, dtype=torch.float32).eval()
    draft.generation_config.num_assistant_tokens = DRAFTED
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    return draft


def run(scale: Scale) -> tuple[dict[str, float], dict[str, float]]:
    """The values of the keys, and the medians behind them. Raises WrongTokensError."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    with start_swarms({"far": SHAPE}) as swarms, swarms["far"].client() as model:
        local = AutoModelForCausalLM.from_pretrained(swarms["far"].model, dtype=torch.float32).eval()
        rounds, ties, agreed = [], 0, []
        for seed in range(scale.rounds):
            prompt, draft = random_prompts(1, PROMPT, seed), make_draft(swarms["far"].model, seed)
            plain, plain_s = timed(generate, model, prompt, scale.tokens)
            with_draft = functools.partial(generate, assistant_model=draft)
            drafted, drafted_s = timed(with_draft, model, prompt, scale.tokens)
            ties += sum(count_ties(local, rows, PROMPT) for rows in (plain, drafted))
            rounds.append((plain_s, drafted_s))
            agreed.append(_agreement(draft, plain))
    plain_s, drafted_s = (statistics.median(times_s) for times_s in zip(*rounds, strict=True))
    values = {
        "speculation_ratio": statistics.median(plain_s / drafted_s for plain_s, drafted_s in rounds),
        "draft_agreement": statistics.mean(agreed),
    }
    return values, {"plain_s": plain_s, "drafted_s": drafted_s, "tokens": scale.tokens, "ties": ties}


@torch.no_grad()
def _agreement(draft: Any, rows: torch.Tensor) -> float:
    """How often the draft, given the text so far, names the token that came."""
    choices = draft(rows[:, :-1], use_cache=True).logits[:, PROMPT - 1 :].argmax(-1)
    return float((choices == rows[:, PROMPT:]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare generations with a draft model with plain ones.")
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer rounds and tokens")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    print("starting 2 nodes, 50 ms apart …", file=sys.stderr, flush=True)
    values, raw = run(QUICK if options.quick else FULL)
    if options.json:
        print_json(values, **raw)
        return
    footer = f"{raw['tokens']:.0f} tokens: {raw['plain_s']:.2f} s plain, {raw['drafted_s']:.2f} s with a draft."
    print_table(KEYS, values, f"{footer} {raw['ties']:.0f} ties.")


if __name__ == "__main__":
    main()
