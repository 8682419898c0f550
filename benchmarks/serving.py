"""How near does a swarm come to the whole model on one machine?

Every figure is held against Transformers' own generate() on the same weights, in the same run, in turns with it: nodes,
p2pds and this client are processes of their own, one torch thread each, with nothing switched off that users have on.
Greedy tokens must be the whole model's; one that is not ends the benchmark.

    python -m benchmarks.serving [--quick] [--json] [--only KEY …]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.instruments import Clock, StepTap, Streams, p99
from benchmarks.report import Key, print_json, print_table
from benchmarks.swarms import Shape, Swarm, start_swarms
from benchmarks.tokens import count_ties, random_prompts

QUARTERS = ("0:2", "2:4", "4:6", "6:8")
LINK_MS = 20.0
SHAPES = {
    "one": Shape("tiny", ("0:8",)),
    "chain": Shape("tiny", QUARTERS),
    "far": Shape("tiny", QUARTERS, LINK_MS),
    "mid": Shape("mid", ("0:16",)),
}
PROMPT, TTFT_PROMPT, STREAMS = 16, 256, 4
KEYS = (
    Key("overhead_ms_first_node", "tiny, 1 node: ms per token over local", 2, petals="10.4"),
    Key("overhead_ms_next_node", "tiny: (4 nodes − 1 node) / 3, ms per token", 1.5, petals="5.0"),
    Key("batch_ratio_8_mid", "mid: 8 sessions of one client on 1 node / local batch of 8", 0.70, True, ".21"),
    Key("batch_ratio_16_mid", "mid: 16 sessions of one client on 1 node / local batch of 16", 0.70, True, ".21"),
    Key("batch_ratio_8_tiny", "tiny: 8 sessions of one client on 1 node / local batch of 8", 0.30, True, ".08"),
    Key("chain_ratio", "tiny, 4 nodes, 5 links of 20 ms: time per token / (100 ms + local)", 1.1, petals="1.6 (star)"),
    Key("ttft_ratio", "tiny, 1 idle node, prompt of 256: first token / local", 1.3, petals="2.1"),
    Key("prefill_interference", "mid: p99 step of 4 sessions while a long prompt is prefilled / undisturbed", 3),
    Key("activations_per_token", "bytes of STEP frames on the client's links, 4 nodes / activation", 2.1, petals="8"),
)


@dataclass(frozen=True)
class Scale:
    """How much is measured: rounds and new tokens for each model, and what disturbs whom for how long."""

    tiny_rounds: int = 7
    tiny_tokens: int = 64
    far_tokens: int = 64
    first_tokens: int = 25
    mid_rounds: int = 3
    mid_tokens: int = 64
    long_prompt: int = 2000
    calm_s: float = 15.0


FULL = Scale()
QUICK = Scale(3, 32, 12, 7, 1, 12, 320, 2.5)


def generate(model: Any, prompts: torch.Tensor, tokens: int, **options: Any) -> Any:
    return model.generate(prompts, max_new_tokens=tokens, do_sample=False, **options)


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What `work` returns, and its seconds."""
    started_s = time.perf_counter()
    return work(*arguments), time.perf_counter() - started_s


class Serving:
    """Runs the measurements; `raw` holds the medians behind the figures, `ties` counts equal choices that differed."""

    def __init__(self, swarms: dict[str, Swarm], scale: Scale) -> None:
        self.swarms, self.scale, self.ties = swarms, scale, 0
        self.values: dict[str, float] = {}
        self.raw: dict[str, float] = {}
        self._locals: dict[str, Any] = {}
        self._clients: dict[str, tuple[Any, ExitStack]] = {}

    def local(self, size: str) -> Any:
        """The whole model in this process."""
        from transformers import AutoModelForCausalLM

        if size not in self._locals:
            path = next(swarm.model for swarm in self.swarms.values() if swarm.shape.size == size)
            self._locals[size] = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            generate(self._locals[size], random_prompts(1, PROMPT, 0), 4)
        return self._locals[size]

    def clients(self, *names: str) -> list[Any]:
        """Clients of these swarms, warm; those of others leave, so that their heartbeats disturb nobody."""
        for name in set(self._clients) - set(names):
            self._clients.pop(name)[1].close()
        for name in names:
            if name not in self._clients:
                stack = ExitStack()
                model = stack.enter_context(self.swarms[name].client())
                self._clients[name] = model, stack
                generate(model, random_prompts(1, PROMPT, 0), 4)
        return [self._clients[name][0] for name in names]

    def median(self, name: str, samples: Iterable[float]) -> float:
        self.raw[name] = statistics.median(samples)
        return self.raw[name]

    def check(self, size: str, rows: torch.Tensor, prompt: int, expected: torch.Tensor | None = None) -> None:
        self.ties += count_ties(self.local(size), rows, prompt, expected)

    def token_s(self, size: str, models: Iterable[Any], tokens: int, seed: int) -> list[float]:
        """The median token's seconds, of the whole model and then of each of `models`, on one prompt."""
        prompt, times_s = random_prompts(1, PROMPT, seed), []
        expected = None
        for model in (self.local(size), *models):
            clock = Clock()
            out = generate(model, prompt, tokens, streamer=clock)
            times_s.append(statistics.median(clock.steps_s))
            expected = out if expected is None else expected
            self.check(size, out, PROMPT, expected)
        return times_s

    # Measurements, each the values of its keys

    def overheads(self) -> dict[str, float]:
        models = self.clients("one", "chain")
        rounds = [self.token_s("tiny", models, self.scale.tiny_tokens, seed) for seed in range(self.scale.tiny_rounds)]
        for name, times_s in zip(("local", "one_node", "four_nodes"), zip(*rounds, strict=True), strict=True):
            self.median(f"tiny_{name}_token_s", times_s)
        first_s = self.median("overhead_first_node_s", [one - local for local, one, _ in rounds])
        others_s = self.median("overhead_other_nodes_s", [chain - one for _, one, chain in rounds])
        return {"overhead_ms_first_node": 1e3 * first_s, "overhead_ms_next_node": 1e3 * others_s / (len(QUARTERS) - 1)}

    def chain(self) -> dict[str, float]:
        models = self.clients("far")
        rounds = [self.token_s("tiny", models, self.scale.far_tokens, seed) for seed in range(self.scale.tiny_rounds)]
        links_s = (len(QUARTERS) + 1) * LINK_MS / 1e3
        self.median("far_token_s", [far for _, far in rounds])
        return {"chain_ratio": self.median("chain_ratio", [far / (links_s + local) for local, far in rounds])}

    def first_token(self) -> dict[str, float]:
        (one,), local, rounds = self.clients("one"), self.local("tiny"), []
        for seed in range(self.scale.first_tokens):
            prompt = random_prompts(1, TTFT_PROMPT, seed)
            expected, local_s = timed(generate, local, prompt, 1)
            out, one_s = timed(generate, one, prompt, 1)
            self.check("tiny", out, TTFT_PROMPT, expected)
            rounds.append((local_s, one_s))
        self.median("tiny_local_first_token_s", [local for local, _ in rounds])
        self.median("tiny_one_node_first_token_s", [one for _, one in rounds])
        return {"ttft_ratio": self.median("ttft_ratio", [one / local for local, one in rounds])}

    def batch(self, swarm: str, count: int) -> dict[str, float]:
        """Whole calls of generate(), from the first one's start to the last one's end."""
        size, (model,), pairs = self.swarms[swarm].shape.size, self.clients(swarm), []
        rounds, tokens = {
            "tiny": (self.scale.tiny_rounds, self.scale.tiny_tokens),
            "mid": (self.scale.mid_rounds, self.scale.mid_tokens),
        }[size]

        def one(prompt: torch.Tensor) -> Any:
            return generate(model, prompt, tokens)

        with ThreadPoolExecutor(count) as pool:
            for seed in range(rounds):
                prompts = random_prompts(count, PROMPT, seed)
                expected, local_s = timed(generate, self.local(size), prompts, tokens)
                outs, swarm_s = timed(lambda rows: list(pool.map(one, rows)), torch.split(prompts, 1))
                pairs.append((local_s, swarm_s))
                self.check(size, torch.cat(outs), PROMPT, expected)
        self.median(f"{size}_local_batch_{count}_s", [local for local, _ in pairs])
        self.median(f"{size}_{count}_sessions_s", [ours for _, ours in pairs])
        key = f"batch_ratio_{count}_{size}"
        return {key: self.median(key, [local / ours for local, ours in pairs])}

    def interference(self) -> dict[str, float]:
        (model,) = self.clients("mid")
        prompt, windows = random_prompts(1, self.scale.long_prompt, 99), []
        with Streams(model, random_prompts(STREAMS, PROMPT, 0)) as streams:
            time.sleep(self.scale.calm_s)
            for _ in range(self.scale.mid_rounds):
                started_s = time.perf_counter()
                out = generate(model, prompt, 1)
                windows.append((started_s, time.perf_counter()))
                time.sleep(self.scale.calm_s)
        self.check("mid", out, self.scale.long_prompt)
        for row in streams.outs:
            self.check("mid", row, PROMPT)
        disturbed, calm = streams.steps_s(windows)
        self.median("mid_long_prompt_s", [stop_s - start_s for start_s, stop_s in windows])
        self.raw.update(
            mid_calm_p99_s=p99(calm), mid_disturbed_p99_s=p99(disturbed), mid_disturbed_steps=len(disturbed)
        )
        return {"prefill_interference": p99(disturbed) / p99(calm)}

    def activations(self) -> dict[str, float]:
        (model,) = self.clients("chain")
        prompt = random_prompts(1, PROMPT, 0)
        with model.session(PROMPT + self.scale.tiny_tokens) as session:
            first = generate(model, prompt, 1, session=session)
            tap = StepTap(model.connection, session)
            out = generate(model, first, self.scale.tiny_tokens - 1, session=session)
            tap.remove()
        self.check("tiny", out, PROMPT)
        activation = model.config.hidden_size * model.dtype.itemsize
        return {"activations_per_token": tap.step_bytes / activation / (self.scale.tiny_tokens - 1)}


@dataclass(frozen=True)
class Measurement:
    """The keys that it measures, the swarms it needs, and how."""

    keys: tuple[str, ...]
    swarms: tuple[str, ...]
    run: Callable[[Serving], dict[str, float]]


MEASUREMENTS = (
    Measurement(("activations_per_token",), ("chain",), Serving.activations),
    Measurement(("overhead_ms_first_node", "overhead_ms_next_node"), ("chain", "one"), Serving.overheads),
    Measurement(("ttft_ratio",), ("one",), Serving.first_token),
    Measurement(("batch_ratio_8_tiny",), ("one",), lambda serving: serving.batch("one", 8)),
    Measurement(("chain_ratio",), ("far",), Serving.chain),
    Measurement(("batch_ratio_8_mid",), ("mid",), lambda serving: serving.batch("mid", 8)),
    Measurement(("batch_ratio_16_mid",), ("mid",), lambda serving: serving.batch("mid", 16)),
    Measurement(("prefill_interference",), ("mid",), Serving.interference),
)


def run(scale: Scale, only: Sequence[str] = (), tell: Callable[[str], None] = lambda line: None) -> Serving:
    """Measure all keys, or those in `only`."""
    torch.set_num_threads(1)
    chosen = [measurement for measurement in MEASUREMENTS if not only or set(only) & set(measurement.keys)]
    needed = {name: SHAPES[name] for measurement in chosen for name in measurement.swarms}
    tell(f"starting {sum(len(shape.spans) for shape in needed.values())} nodes …")
    with start_swarms(needed) as swarms:
        serving = Serving(swarms, scale)
        try:
            for measurement in chosen:
                tell(f"measuring {', '.join(measurement.keys)} …")
                serving.values.update(measurement.run(serving))
        finally:
            serving.clients()
    return serving


def caption(scale: Scale, serving: Serving) -> str:
    steps = f", p99 of {serving.raw['mid_disturbed_steps']:.0f} steps" if "mid_disturbed_steps" in serving.raw else ""
    return (
        f"{serving.ties} ties. Prompts of {PROMPT} tokens; new ones: tiny {scale.tiny_tokens}, over long links "
        f"{scale.far_tokens}, mid {scale.mid_tokens}. The long prompt has {scale.long_prompt} tokens{steps}."
    )


def main() -> None:
    names = [key.name for key in KEYS]
    parser = argparse.ArgumentParser(
        description="Compare a swarm's speed with that of the whole model on this machine."
    )
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer rounds, shorter prompts")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--only", nargs="+", choices=names, default=(), metavar="KEY", help=f"of {', '.join(names)}")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    began_s = time.perf_counter()

    def tell(line: str) -> None:
        print(f"{time.perf_counter() - began_s:5.1f} s  {line}", file=sys.stderr, flush=True)

    serving = run(scale, options.only, tell)
    if options.json:
        print_json(serving.values, ties=serving.ties, scale=asdict(scale), raw=serving.raw)
    else:
        print_table(KEYS, serving.values, caption(scale, serving))


if __name__ == "__main__":
    main()
