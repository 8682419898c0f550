"""8 and 4 bits on CUDA: what they take, what they lose, and sessions together."""

from pathlib import Path

import pytest
import torch
from nectar_node.packed import PackedRunner
from nectar_node.profiles import make_format
from nectar_node.selftest import TOLERANCE, self_test
from nectar_node.span import SpanModel
from nectar_node.trial import choose_runner, measure
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.source import LocalFolder

from benchmarks.models import make_llama
from benchmarks.profiles import error_of, output_of
from tests.node.sessions import Turn, run

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda", 0)
ERRORS = {Profile.BF16: (0.001, 0.02), Profile.INT8: (0.005, 0.05), Profile.NF4: (0.05, 0.25)}


def load(folder: Path, profile: Profile) -> SpanModel:
    source = LocalFolder(folder)
    anatomy = examine(load_config(source))
    kept = make_format(profile, anatomy, DEVICE, None)
    quantised = profile if profile in (Profile.INT8, Profile.NF4) else None
    return SpanModel(Checkpoint(source), anatomy, 0, anatomy.blocks, kept.dtype, DEVICE, quantised)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama("half", tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("profile", list(ERRORS), ids=["bf16", "int8", "nf4"])
@torch.inference_mode()
def test_a_span_has_its_profiles_size_and_errors_and_serves_sessions_together(profile: Profile, folder: Path) -> None:
    exact = output_of(load(folder, Profile.F32))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    span = load(folder, profile)
    held, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    self_test(span)
    runner = choose_runner(span, 1024)
    assert type(runner) is PackedRunner
    speed = measure(span, runner)
    error = error_of(output_of(span), exact)
    print(f"\n{profile.name}: {held >> 20} MiB, peak {peak >> 20}, a token {speed.decode_us} µs, error {error:.4f}")
    least, most = ERRORS[profile]
    assert least < error < most
    largest_block = 4 * max(examine(load_config(LocalFolder(folder))).block_parameters)
    assert peak <= held + largest_block + 100_000_000
    hidden = [
        torch.randn(1, 8, span.width, generator=torch.Generator().manual_seed(at)).to(span.dtype) for at in range(4)
    ]
    kvs = [runner.reserve(0, span.stop, 16, (0,)) for _ in hidden]
    together = run(runner, *((kv, Turn(0, row)) for kv, row in zip(kvs, hidden, strict=True)))
    positions = torch.arange(8, device=DEVICE)[None]
    for row, output in zip(hidden, together, strict=True):
        alone = span.forward(row, None, start=0, stop=span.stop, position_ids=positions).cpu()
        assert error_of(output.float(), alone.float()) < TOLERANCE[profile]
