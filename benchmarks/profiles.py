"""What each profile costs and loses on a CPU: memory while loading and after, speed alone, and errors.

Eight blocks of a Llama (hidden 1024) with gaussian weights, each profile in a process of its own. **Anonymous** memory
is what the process itself allocates beyond what it had with all imports done. Pages of the checkpoint's files that are
only mapped do not count: the system shares them between processes and drops them at will; float32 weights of a float32
checkpoint are nothing else. **Peak** is from the start of loading to the end of the self-test, which packs 4-bit
weights for the CPU.
**Error** is that of the last block's output for 32 tokens, relative to float32's, in norm.

    python -m benchmarks.profiles [--profile f32 …] [--size half] [--json]
"""

import argparse
import gc
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from nectar_node.memory import return_freed_memory
from nectar_node.profiles import NAMES, Format, make_format
from nectar_node.quantised import QUANTISED
from nectar_node.selftest import self_test
from nectar_node.span import SpanModel
from nectar_node.trial import choose_runner, measure
from nectar_swarm.anatomy import Anatomy, examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.source import LocalFolder
from rich.console import Console
from rich.table import Table

from benchmarks.models import SIZES, make_llama
from benchmarks.report import WIDTH

CPU = torch.device("cpu")
TOKENS, POSITIONS, SAMPLE_S = 32, 1024, 0.0005


@dataclass(frozen=True)
class Cost:
    """Of one profile. `final` and `peak` are anonymous memory beyond what the process had before it loaded."""

    profile: str
    meant_bytes: int
    weight_bytes: int
    final_bytes: int
    peak_bytes: int
    largest_block_bytes: int  # in full precision
    load_s: float
    decode_ms: float
    prefill_ms: float
    error: float


class Anonymous:
    """This process's anonymous memory, watched from a thread. Linux only."""

    def __init__(self) -> None:
        self.before = self.peak = self.now()
        self._began_s = time.perf_counter()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.peak = max(self.peak, self.now())

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began_s

    def end(self) -> tuple[int, int]:
        """(final, peak), beyond what there was before."""
        self._done.set()
        self._watcher.join()
        gc.collect()
        final = self.now()
        return final - self.before, max(self.peak, final) - self.before


def load(checkpoint: Checkpoint, anatomy: Anatomy, kept: Format) -> SpanModel:
    """All blocks."""
    quantised = kept.profile if kept.profile in QUANTISED else None
    return SpanModel(checkpoint, anatomy, 0, anatomy.blocks, kept.dtype, CPU, quantised)


def cost_of(profile: str, folder: Path) -> Cost:
    """To be measured in a process that has loaded nothing else."""
    torch.set_grad_enabled(False)
    return_freed_memory()
    source = LocalFolder(folder)
    assert source.manifest.files, "hashing is not loading"
    checkpoint, anatomy = Checkpoint(source), examine(load_config(source))
    kept = make_format(NAMES[profile], anatomy, CPU, None)
    if kept.profile in QUANTISED:
        importlib.import_module("bitsandbytes")
    memory = Anonymous()
    span = load(checkpoint, anatomy, kept)
    load_s = memory.elapsed_s()
    self_test(span)
    final, peak = memory.end()
    speed = measure(span, choose_runner(span, POSITIONS))
    exact = load(checkpoint, anatomy, make_format(NAMES["f32"], anatomy, CPU, None))
    return Cost(
        profile,
        sum(kept.block_bytes),
        span.weight_bytes,
        final,
        peak,
        4 * max(anatomy.block_parameters),
        load_s,
        speed.decode_s * 1e3,
        speed.prefill_s * 1e3,
        error_of(output_of(span), output_of(exact)),
    )


def output_of(span: SpanModel) -> torch.Tensor:
    hidden = torch.randn(1, TOKENS, span.width, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(TOKENS, device=span.device)[None]
    return span.forward(hidden, None, start=span.start, stop=span.stop, position_ids=positions).float().cpu()


def error_of(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def cost_in_process(profile: str, folder: Path) -> Cost:
    """The cost in a process of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", "benchmarks.profiles", "--one", profile, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return Cost(**json.loads(ran.stdout.splitlines()[-1]))


def show(costs: list[Cost]) -> None:
    table = Table("profile", "loaded MiB", "peak above", "largest block", "load s", "token ms", "prompt ms", "error %")
    for cost in costs:
        sizes = (cost.final_bytes, cost.peak_bytes - cost.final_bytes, cost.largest_block_bytes)
        times = (cost.load_s, cost.decode_ms, cost.prefill_ms, cost.error * 100)
        table.add_row(cost.profile, *(f"{size / 2**20:.0f}" for size in sizes), *(f"{time:.2f}" for time in times))
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", action="append", choices=[*NAMES])
    parser.add_argument("--size", choices=[*SIZES], default="half")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("PROFILE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(cost_of(options.one[0], Path(options.one[1])))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_llama(options.size, Path(scratch))
        costs = [cost_in_process(name, folder) for name in options.profile or ("f32", "bf16", "int8", "nf4")]
    show(costs)
    if options.json:
        print(json.dumps({cost.profile: asdict(cost) for cost in costs}))


if __name__ == "__main__":
    main()
