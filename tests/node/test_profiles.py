"""Which format a node keeps its weights in: as it is told, or the most faithful that serves enough."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.errors import ProfileError
from nectar_node.profiles import DTYPES, Format, best, candidates, choose_format, make_format
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import Anatomy, examine

from tests.families.configs import BLOCKS, CONFIGS

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
counts = st.lists(st.integers(0, 80), min_size=1, max_size=5)


@given(counts, st.integers(1, 80), st.integers(1, 80))
def test_the_best_format_serves_enough_or_most_and_no_more_faithful_one_does(
    fitting: list[int], blocks: int, enough: int
) -> None:
    fitting, enough = [min(count, blocks) for count in fitting], min(enough, blocks)
    chosen = best(fitting, blocks, enough)
    assert (chosen == 0 and fitting[0] >= enough) or fitting[chosen] == max(fitting)
    assert all(count < fitting[chosen] for count in fitting[:chosen])


@given(counts, st.integers(1, 80), st.integers(1, 80), st.data())
def test_more_memory_never_makes_the_best_format_less_faithful_once_all_blocks_fit(
    fitting: list[int], blocks: int, enough: int, data: st.DataObject
) -> None:
    fitting = [min(count, blocks) for count in fitting]
    more = [min(count + data.draw(st.integers(0, 80)), blocks) for count in fitting]
    chosen = best(fitting, blocks, min(enough, blocks))
    if fitting[chosen] == blocks:
        assert best(more, blocks, min(enough, blocks)) <= chosen


@pytest.fixture(scope="module")
def llama() -> Anatomy:
    config = CONFIGS["llama"]()
    config.intermediate_size = 128
    return examine(config)


def choose(anatomy: Anatomy, available: int, wanted: str = "auto", device: torch.device = CPU, named: bool = False):  # type: ignore[no-untyped-def]
    def fitting(one: Format) -> int:
        return min(available // max(one.block_bytes), BLOCKS)

    return choose_format(wanted, anatomy, device, fitting, BLOCKS, named)


def test_auto_on_a_cpu_keeps_float32_while_a_quarter_of_the_blocks_fit(llama: Anatomy) -> None:
    block = 4 * llama.block_parameters[0]
    assert choose(llama, 2 * block).profile is Profile.F32
    assert choose(llama, 2 * block - 1).profile is Profile.INT8  # all six fit, which bfloat16 has no room for
    assert choose(llama, 2 * block, named=True).profile is Profile.INT8
    assert choose(llama, 3 * block, named=True).profile is Profile.BF16
    assert choose(llama, block).profile is Profile.NF4
    assert choose(llama, 0).profile is Profile.F32  # nothing fits: whoever needs a block says so


def test_auto_on_a_gpu_keeps_the_checkpoints_own_format_while_all_blocks_fit(llama: Anatomy) -> None:
    block = 2 * llama.block_parameters[0]
    assert choose(llama, BLOCKS * block, device=CUDA).profile is Profile.BF16
    assert choose(llama, BLOCKS * block - 1, device=CUDA).profile is Profile.INT8
    assert choose(llama, block, device=CUDA).profile is Profile.NF4


def test_auto_passes_over_what_cannot_be_right() -> None:
    mixtral = examine(CONFIGS["mixtral"]())
    assert choose(mixtral, 2 * max(mixtral.block_parameters), named=True).profile is Profile.BF16
    assert choose(mixtral, max(mixtral.block_parameters), device=MPS).profile is Profile.BF16


def test_candidates_begin_with_what_loses_nothing() -> None:
    assert candidates(CPU, torch.bfloat16) == (Profile.F32, Profile.BF16, Profile.INT8, Profile.NF4)
    assert candidates(CUDA, torch.float16) == (Profile.FP16, Profile.INT8, Profile.NF4)
    assert candidates(CUDA, torch.float32) == (Profile.F32, Profile.BF16, Profile.INT8, Profile.NF4)
    assert candidates(CUDA, torch.float64) == candidates(CUDA, None) == (Profile.BF16, Profile.INT8, Profile.NF4)


@pytest.mark.parametrize("profile", list(Profile))
def test_what_is_named_is_taken_whether_it_fits_or_not(llama: Anatomy, profile: Profile) -> None:
    chosen = choose(llama, 0, profile.name.lower())
    assert chosen.profile is profile
    assert chosen.dtype is DTYPES.get(profile, torch.bfloat16)
    assert len(chosen.block_bytes) == BLOCKS


def test_quantised_weights_go_with_half_precision_as_the_checkpoint_has_it_on_a_gpu(llama: Anatomy) -> None:
    assert make_format(Profile.NF4, llama, CUDA, torch.float16).dtype is torch.float16
    assert make_format(Profile.NF4, llama, CUDA, torch.float32).dtype is torch.bfloat16
    assert make_format(Profile.NF4, llama, CPU, torch.float16).dtype is torch.bfloat16


@pytest.mark.parametrize("wanted", ["float32", "int3", "", "NF4"])
def test_an_unknown_profile_is_refused_with_those_there_are(llama: Anatomy, wanted: str) -> None:
    with pytest.raises(ProfileError, match="choose auto, f32, bf16, fp16, int8, nf4"):
        choose(llama, 0, wanted)


@pytest.mark.parametrize("wanted", ["auto", "bf16", "nf4"])
def test_a_checkpoint_that_is_quantised_already_is_refused(wanted: str) -> None:
    config = CONFIGS["llama"]()
    anatomy = examine(config)
    config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(ProfileError, match=r"quantised already \(fp8\); choose one in bfloat16"):
        choose(anatomy, 0, wanted)
