"""Do sessions survive? Nodes and their p2pds are killed or stopped from outside, at steps chosen before the run.

Two spans with two replicas each, every node a process with a p2pd of its own. Each round opens a session, generates a
few tokens, and goes on with a longer text; in that second part, while its prompt is computed or after a chosen token,
a node of the route gets its signal. The tokens must be those of the whole model on this machine.

    python -m benchmarks.survival [--kills 20] [--seed 0] [--quick] [--json]
"""

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nectar_demo.processes import NodeProcess

from benchmarks.models import VOCABULARY, make_llama

SPANS = ("0:4", "4:8")
REPLICAS = 2
PROMPT, TURN, NEW = 16, 96, 24
HANG_S = 40.0
TIE_GAP = 1e-3


@dataclass(frozen=True)
class Kill:
    """One planned kill: which process of which hop gets which signal, after which token of the second part (0: while
    its prompt is computed), and how far into that step."""

    number: int
    hop: int
    target: str
    signal: str
    token: int
    delay_ms: float


@dataclass(frozen=True)
class Result:
    """How a round went; `stall_ms` is its longest step, `step_ms` its median one."""

    kill: Kill
    wrong: bool
    tie: bool
    hung: bool
    repaired: bool
    error: str
    stall_ms: float
    step_ms: float


def plan(kills: int, seed: int) -> list[Kill]:
    """Every kind of kill in turn, everything else drawn from the seed."""
    source = random.Random(seed)
    kinds = [("node", "SIGKILL"), ("p2pd", "SIGKILL"), ("node", "SIGSTOP"), ("node", "SIGKILL"), ("p2pd", "SIGSTOP")]
    return [
        Kill(
            number=number,
            hop=source.randrange(len(SPANS)),
            target=kinds[number % len(kinds)][0],
            signal=kinds[number % len(kinds)][1],
            token=0 if number % 4 == 1 else source.randrange(1, NEW - 2),
            delay_ms=source.uniform(0, 8),
        )
        for number in range(kills)
    ]


class Swarm:
    """The nodes under fire. `ready` brings every one of them back."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.nodes: list[NodeProcess] = []
        for span in SPANS:
            for replica in range(REPLICAS):
                self.nodes.append(self._start(f"{span.replace(':', '-')}-{replica}", span))
                if len(self.nodes) == 1:
                    self.nodes[0].wait()
        for node in self.nodes[1:]:
            node.wait()

    def _start(self, name: str, span: str) -> NodeProcess:
        peers = [node.address for node in self.nodes if node.serving and node.alive]
        return NodeProcess(name, self.folder, self.model, span, peers, ["--drain", "0"])

    def node(self, peer: str) -> NodeProcess:
        return next(node for node in self.nodes if node.peer == peer)

    def ready(self) -> None:
        """Continue what was stopped, start anew what is dead, and wait for p2pds that nodes start again."""
        for at, node in enumerate(self.nodes):
            if not node.alive:
                node.stop()
                self.nodes[at] = self._start(node.name, node.blocks or "").wait()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


@contextmanager
def swarm(model: Path) -> Iterator[Swarm]:
    with tempfile.TemporaryDirectory(prefix="nectar-survival-") as folder:
        nodes: Swarm | None = None
        try:
            nodes = Swarm(model, Path(folder))
            yield nodes
        finally:
            if nodes is not None:
                nodes.stop()


class Trigger:
    """A streamer that sends the planned signal once the planned token is out, and keeps each step's time."""

    def __init__(self, kill: Kill, session: Any, nodes: Swarm) -> None:
        self.kill, self.session, self.nodes = kill, session, nodes
        self.times_s: list[float] = []
        self.victim: NodeProcess | None = None
        self.undo: Callable[[], None] = lambda: None
        self._last_s = 0.0

    def put(self, value: Any) -> None:
        now_s = time.perf_counter()
        if self._last_s:
            self.times_s.append(now_s - self._last_s)
        if len(self.times_s) == self.kill.token:
            self._arm()
        self._last_s = time.perf_counter()

    def end(self) -> None: ...

    def _arm(self) -> None:
        self.victim = self.nodes.node(self.session.route[self.kill.hop].peer)
        pid = self.victim.process.pid if self.kill.target == "node" else self.victim.p2pd_pid
        number = getattr(signal, self.kill.signal)

        def fire() -> None:
            import os

            os.kill(pid, number)
            if number == signal.SIGSTOP:
                self.undo = lambda: os.kill(pid, signal.SIGCONT)

        timer = threading.Timer(self.kill.delay_ms / 1e3, fire)
        timer.daemon = True
        timer.start()
        self._timer = timer

    def join(self) -> None:
        if self.victim is not None:
            self._timer.join()
            self.undo()


def first_difference_is_a_tie(local: Any, out: Any, expected: Any) -> bool:
    """Was the whole model's own choice, where the two first differ, one between equals?"""
    import torch

    at = int((out[0] != expected[0]).nonzero()[0])
    with torch.no_grad():
        logits = local(expected[:, :at]).logits[0, -1]
    top = logits.topk(2).values
    return bool(top[0] - top[1] < TIE_GAP)


def run_round(kill: Kill, nodes: Swarm, model: Any, local: Any) -> Result:
    """One session with one kill; a thread of its own, so that a hang is seen and not suffered."""
    import torch

    generator = torch.Generator().manual_seed(kill.number)
    first = torch.randint(2, VOCABULARY, (1, PROMPT), generator=generator)
    more = torch.randint(2, VOCABULARY, (1, TURN), generator=generator)
    settings = {"do_sample": False}
    state: dict[str, Any] = {"error": "", "out": None}
    session = model.session(PROMPT + TURN + 2 * NEW)

    def work() -> None:
        try:
            turn = model.generate(first, session=session, max_new_tokens=4, **settings)
            text = state["text"] = torch.cat([turn, more], 1)
            state["trigger"] = Trigger(kill, session, nodes)
            state["out"] = model.generate(
                text, session=session, max_new_tokens=NEW, streamer=state["trigger"], **settings
            )
        except Exception as error:
            state["error"] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(HANG_S)
    hung = thread.is_alive()
    trigger = state.get("trigger")
    if trigger is not None:
        trigger.join()
    repaired, out = bool(session.repairs), state["out"]
    session.close()
    wrong = tie = False
    if out is not None:
        expected = local.generate(state["text"], max_new_tokens=NEW, **settings)
        if not torch.equal(out, expected):
            tie = first_difference_is_a_tie(local, out, expected)
            wrong = not tie
    times = trigger.times_s if trigger else []
    return Result(
        kill, wrong, tie, hung, repaired, state["error"],
        round(1e3 * max(times, default=0.0), 1), round(1e3 * statistics.median(times or [0.0]), 2),
    )  # fmt: skip


def run(kills: int, seed: int, on_result: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """All rounds, on one swarm that is made whole between them."""
    import torch
    from nectar.connection import Connection
    from nectar.model import AutoDistributedModelForCausalLM
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="nectar-models-") as folder:
        path = make_llama("tiny", Path(folder))
        local = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        results = []
        with swarm(path) as nodes:
            connection = Connection.open([node.address for node in nodes.nodes])
            try:
                model = AutoDistributedModelForCausalLM.from_pretrained(
                    str(path), connection=connection, patience_s=30.0
                )
                for kill in plan(kills, seed):
                    nodes.ready()
                    results.append(run_round(kill, nodes, model, local))
                    on_result(results[-1])
            finally:
                connection.close()
        return results


def summary(results: list[Result]) -> dict[str, Any]:
    """The keys that the benchmark's last line holds."""
    dead = [r for r in results if r.kill.signal == "SIGKILL" and r.repaired]
    stopped = [r for r in results if r.kill.signal == "SIGSTOP" and r.repaired]
    return {
        "kills": len(results),
        "wrong_tokens": sum(r.wrong for r in results),
        "ties": sum(r.tie for r in results),
        "hangs": sum(r.hung for r in results),
        "errors": sum(bool(r.error) for r in results),
        "repaired": sum(r.repaired for r in results),
        "stall_ms_median_dead": statistics.median([r.stall_ms for r in dead] or [0.0]),
        "stall_ms_median_stopped": statistics.median([r.stall_ms for r in stopped] or [0.0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill nodes under running sessions.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="ten kills")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def tell(result: Result) -> None:
        kill = result.kill
        where = f"token {kill.token}" if kill.token else "prefill"
        state = "hung" if result.hung else result.error or ("WRONG" if result.wrong else "same tokens")
        print(
            f"{kill.number:3} {kill.signal} of hop {kill.hop}'s {kill.target:4} at {where:8} {state}, "
            f"stall {result.stall_ms:.0f} ms, usual step {result.step_ms:.1f} ms",
            file=sys.stderr,
        )

    results = run(10 if options.quick else options.kills, options.seed, tell)
    if options.json:
        print(json.dumps({"rounds": [asdict(result) for result in results], **summary(results)}))
    else:
        print(*(f"{key:26} {value}" for key, value in summary(results).items()), sep="\n")


if __name__ == "__main__":
    main()
