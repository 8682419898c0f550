"""How many blocks fit on one device and on several, in which format, and what is loaded onto each."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.errors import PlacementError
from nectar_node.loader import MEMORY_SHARE, Loader
from nectar_node.placement import share_blocks
from nectar_node.span import SpanModel
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import Anatomy
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.folder import LocalFolder

from benchmarks.profiles import error_of
from tests.node.sessions import noise

BLOCKS, KV_TOKENS = 6, 1000
KV_BYTES = 2 * 2 * 16 * KV_TOKENS  # keys and values, 2 heads of 16 numbers; of each block, for each byte of a number
CPU, ONE, OTHER = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)

Make = Callable[..., Loader]


@pytest.fixture
def make(checkpoint_folder: Callable[[str], Path], anatomy_of: Callable[[str], Anatomy]) -> Make:
    def loader(
        *devices: torch.device, profile: str = "auto", blocks: str | None = None, most: int | None = None
    ) -> Loader:
        return Loader(
            Checkpoint(LocalFolder(checkpoint_folder("llama"))), anatomy_of("llama"), devices or (CPU,),
            profile=profile, kv_tokens=KV_TOKENS, blocks=blocks, max_blocks=most,
        )  # fmt: skip

    return loader


@pytest.fixture
def block_bytes(anatomy_of: Callable[[str], Anatomy]) -> Callable[[int], int]:
    """A block with its KV, in numbers of so many bytes."""
    return lambda itemsize: itemsize * (max(anatomy_of("llama").block_parameters) + KV_BYTES)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how much a node may use on each device, of the share that it may use."""

    def have(*bytes_of: tuple[torch.device, float]) -> None:
        free = dict(bytes_of)
        monkeypatch.setattr("nectar_node.loader.free_bytes", lambda device: int(free[device] / MEMORY_SHARE) + 1)

    return have


def test_a_small_model_fits_and_no_more_is_taken_than_may_be(make: Make) -> None:
    assert make().blocks_that_fit == BLOCKS
    assert make(most=2).blocks_that_fit == 2


def test_what_fits_is_counted_with_its_kv(
    make: Make, block_bytes: Callable[[int], int], memory: Callable[..., None]
) -> None:
    memory((CPU, 2.5 * block_bytes(4)))
    assert make(profile="f32").blocks_that_fit == 2
    memory((CPU, 0.5 * block_bytes(4)))
    with pytest.raises(PlacementError, match="not one block fits"):
        _ = make(profile="f32").blocks_that_fit


def test_little_memory_means_fewer_bits(
    make: Make, block_bytes: Callable[[int], int], memory: Callable[..., None]
) -> None:
    memory((CPU, 4.5 * block_bytes(2)))
    assert make().format.profile is Profile.F32  # two of six blocks
    named = make(blocks="0:5")
    assert named.format.profile is Profile.INT8
    loaded = named.load(0, 5)
    assert [stage.span.profile for stage in loaded.stages] == [Profile.INT8]


def test_blocks_that_no_device_could_hold_alone_fit_on_two(
    make: Make, block_bytes: Callable[[int], int], memory: Callable[..., None]
) -> None:
    memory((ONE, 4.5 * block_bytes(2)), (OTHER, 1.5 * block_bytes(2)))
    assert make(ONE, profile="bf16").blocks_that_fit == 4
    assert make(ONE, OTHER, profile="bf16").blocks_that_fit == 5
    memory((ONE, 0.5 * block_bytes(2)), (OTHER, 1.5 * block_bytes(2)))
    assert make(ONE, OTHER, profile="bf16").blocks_that_fit == 1


def test_a_device_that_is_named_twice_has_its_memory_once(
    make: Make, block_bytes: Callable[[int], int], memory: Callable[..., None]
) -> None:
    memory((CPU, 4.5 * block_bytes(4)))
    assert make(CPU, CPU, profile="f32").blocks_that_fit == make(profile="f32").blocks_that_fit == 4


def test_a_span_is_loaded_side_by_side_and_each_stage_is_measured(make: Make) -> None:
    loaded = make(CPU, CPU, CPU).load(1, 6)
    spans = [(stage.span.start, stage.span.stop) for stage in loaded.stages]
    assert spans == [(1, 3), (3, 4), (4, 6)]
    assert loaded.blocks == (1, 6)
    assert all(stage.speed.decode_s > 0 and stage.runner.kv_total >= KV_TOKENS for stage in loaded.stages)
    assert loaded.speed.decode_us >= 3


@pytest.mark.parametrize(("profile", "rounding"), [(Profile.BF16, 0.04), (Profile.FP16, 0.005)])
def test_a_span_in_half_precision_has_half_the_bytes_and_its_rounding(
    profile: Profile, rounding: float, make: Make, load_span: Callable[..., SpanModel]
) -> None:
    ((stage,), exact) = make(profile=profile.name.lower()).load(1, 5).stages, load_span("llama", 1, 5)
    hidden, positions = noise(1, 9), torch.arange(9)[None]
    half, full = (
        span.forward(hidden.to(span.dtype), None, start=1, stop=5, position_ids=positions).float()
        for span in (stage.span, exact)
    )
    assert stage.span.profile is profile
    assert sum(weight.nbytes for weight in stage.span.model.parameters()) * 2 == sum(
        weight.nbytes for weight in exact.model.parameters()
    )
    assert 0 < error_of(half, full) < rounding


def test_a_device_for_which_no_block_is_left_has_no_stage(make: Make) -> None:
    assert len(make(CPU, CPU, CPU).load(2, 4).stages) == 2


@given(st.lists(st.integers(0, 80), min_size=1, max_size=8), st.data())
def test_shares_are_in_proportion_and_never_more_than_fits(capacities: list[int], data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, max(sum(capacities), 1)))
    shares = share_blocks(blocks, capacities)
    assert sum(shares) == blocks
    if any(capacities):
        assert all(0 <= share <= capacity for share, capacity in zip(shares, capacities, strict=True))
        fair = [blocks * capacity / sum(capacities) for capacity in capacities]
        assert all(abs(share - exact) <= 1 for share, exact in zip(shares, fair, strict=True))
