"""8 and 4 bits: all that was meant to be is quantised, computes what its weights say, and is never whole in memory."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from nectar_node.errors import ProfileError, SpanError
from nectar_node.profiles import make_format
from nectar_node.quantised import audit, load_blocks_on_meta, quantised_layers, refuse_unless_right, scales_of
from nectar_node.selftest import TOLERANCE, self_test
from nectar_node.span import SpanModel
from nectar_node.trial import choose_runner
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import Anatomy, examine, find_stack, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.source import LocalFolder
from torch import nn

from benchmarks.models import make_llama
from benchmarks.profiles import cost_in_process, error_of
from tests.families.configs import CONFIGS
from tests.node.sessions import START, STOP, cached, noise, run, turns_of

CPU = torch.device("cpu")
SELF_TEST_BYTES = 80 << 20  # what the steps of the self-test leave with the allocator
QUICK = ("llama", "gpt2", "mpt")
MORE = ("gemma2", "phi3", "opt", "bloom", "gpt_neox", "gptj", "stablelm", "phi3_longrope")
every_family = pytest.mark.parametrize("family", [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in MORE)])
both = pytest.mark.parametrize("profile", [Profile.INT8, Profile.NF4], ids=["int8", "nf4"])
# Of what a block adds to random hidden states, by gaussian weights: bfloat16 loses about 1 %.
ERRORS = {Profile.INT8: (0.005, 0.05), Profile.NF4: (0.1, 0.4)}
Spans = Callable[[str, Profile], SpanModel]


def config_of(family: str) -> transformers.PretrainedConfig:
    """The family's, with widths that 4 bits can have."""
    config = CONFIGS[family]()
    for name in ("intermediate_size", "ffn_dim"):
        if getattr(config, name, None) == 96:
            setattr(config, name, 128)
    return config


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Spans:
    """Blocks [1, 5) of a family in a profile, loaded and audited, never run."""

    @cache
    def checkpoint(family: str) -> tuple[Checkpoint, Anatomy]:
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config_of(family)).save_pretrained(folder)
        source = LocalFolder(folder)
        return Checkpoint(source), examine(load_config(source))

    def load(family: str, profile: Profile) -> SpanModel:
        weights, anatomy = checkpoint(family)
        kept = make_format(profile, anatomy, CPU, None)
        quantised = None if profile is Profile.F32 else profile
        return SpanModel(weights, anatomy, START, STOP, kept.dtype, CPU, quantised)

    return load


def blocks_of(span: SpanModel) -> nn.ModuleList:
    owner, stack = find_stack(span.model)
    return getattr(owner, stack)


def one_block(span: SpanModel, hidden: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(hidden.shape[1])[None]
    return span.forward(hidden, None, start=START, stop=START + 1, position_ids=positions).float()


@both
@every_family
def test_a_quantised_span_has_the_size_and_the_errors_of_its_profile(
    family: str, profile: Profile, spans: Spans
) -> None:
    span, exact = spans(family, profile), spans(family, Profile.F32)
    kept = make_format(profile, examine(config_of(family)), CPU, None)
    buffers = sum(buffer.nbytes for buffer in span.model.buffers())
    assert span.weight_bytes == sum(kept.block_bytes[START:STOP]) + buffers
    assert not any("forward" in vars(layer) for _, layer in quantised_layers(span.model))  # oneDNN has no part in them
    self_test(span)
    hidden = noise(1, 32)
    expected = one_block(exact, hidden)
    least, most = ERRORS[profile]
    assert least < error_of(one_block(span, hidden) - hidden, expected - hidden) < most


@both
@every_family
def test_sessions_of_a_quantised_span_give_together_what_each_gives_alone(
    family: str, profile: Profile, spans: Spans
) -> None:
    span = spans(family, profile)
    runner = choose_runner(span, 256)
    sessions = [turns_of(noise(1, 12, seed, span.dtype), *sizes) for seed, sizes in enumerate(((5, 7), (11, 1)))]
    kvs = [runner.reserve(START, STOP, 16, (0,)) for _ in sessions]
    steps = [run(runner, *zip(kvs, turns, strict=True)) for turns in zip(*sessions, strict=True)]
    for turns, outputs in zip(sessions, zip(*steps, strict=True), strict=True):
        alone = torch.cat(cached(span, turns), 1).float()
        assert error_of(torch.cat(outputs, 1).float(), alone) < TOLERANCE[profile]


def test_a_span_in_4_bits_computes_what_its_weights_say(spans: Spans) -> None:
    from bitsandbytes.functional import dequantize_4bit

    span, exact = spans("llama", Profile.NF4), spans("llama", Profile.F32)
    for name, layer in quantised_layers(span.model):
        exact.model.get_submodule(name).weight.data = dequantize_4bit(layer.weight, layer.weight.quant_state).float()
    hidden = noise(1, 32)
    assert error_of(one_block(span, hidden), one_block(exact, hidden)) < 0.02  # bfloat16's


@both
def test_what_was_left_out_or_is_not_as_meant_is_found_after_loading(profile: Profile, spans: Spans) -> None:
    span = spans("llama", profile)
    meant = load_blocks_on_meta(config_of("llama"))[START:STOP]
    audit(blocks_of(span), meant, profile)
    name, layer = quantised_layers(blocks_of(span)[2])[0]
    scales_of(layer)[0] = float("inf")
    with pytest.raises(SpanError, match=f"{name} of the span's block 2 is too large for {profile.name.lower()}"):
        audit(blocks_of(span), meant, profile)
    blocks_of(span)[1].set_submodule(name, nn.Linear(64, 64))
    with pytest.raises(SpanError, match=f"{name} of the span's block 1 is not as {profile.name.lower()} makes it"):
        audit(blocks_of(span), meant, profile)
    wide = config_of("llama")
    wide.intermediate_size = 192
    with pytest.raises(SpanError, match="gate_proj of the span's block 0 takes"):
        audit(blocks_of(span), load_blocks_on_meta(wide)[START:STOP], profile)


@both
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "llama4_text", "phimoe"])
def test_experts_in_one_tensor_are_refused_before_loading(family: str, profile: Profile) -> None:
    blocks = load_blocks_on_meta(CONFIGS[family]())
    with pytest.raises(ProfileError, match=r"leave .*experts.* in full precision; choose bf16"):
        refuse_unless_right(blocks, profile, CPU)


@pytest.mark.parametrize("family", ["falcon", "falcon_alibi"])
def test_linear_layers_of_a_familys_own_are_refused_before_loading(family: str) -> None:
    with pytest.raises(ProfileError, match="FalconLinear, not a plain linear layer"):
        refuse_unless_right(load_blocks_on_meta(CONFIGS[family]()), Profile.INT8, CPU)


def test_widths_that_4_bits_get_wrong_are_refused_before_loading() -> None:
    config = CONFIGS["llama"]()
    with pytest.raises(ProfileError, match=r"inputs in multiples of 64, and mlp.down_proj has 96; choose int8"):
        refuse_unless_right(load_blocks_on_meta(config), Profile.NF4, CPU)
    refuse_unless_right(load_blocks_on_meta(config), Profile.INT8, CPU)
    config.intermediate_size, config.num_key_value_heads, config.head_dim = 128, 1, 16
    blocks = load_blocks_on_meta(config)
    with pytest.raises(ProfileError, match=r"outputs in multiples of 32 on a CPU, and self_attn.k_proj has 16"):
        refuse_unless_right(blocks, Profile.NF4, CPU)
    refuse_unless_right(blocks, Profile.NF4, torch.device("cuda"))


def test_devices_and_libraries_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = load_blocks_on_meta(config_of("llama"))
    with pytest.raises(ProfileError, match="not to be had on mps; choose bf16"):
        refuse_unless_right(blocks, Profile.INT8, torch.device("mps"))
    monkeypatch.setattr("nectar_node.quantised.find_spec", lambda name: None)
    with pytest.raises(ProfileError, match=r"needs bitsandbytes and accelerate, which pip install 'nectar-swarm\[node"):
        refuse_unless_right(blocks, Profile.INT8, CPU)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from /proc")
@pytest.mark.parametrize("profile", ["int8", "nf4"])
@pytest.mark.parametrize(("size", "slack"), [("wide", 16 << 20), ("mid", 100_000_000)])
def test_a_span_is_never_held_in_full_precision_while_it_loads(
    size: str, profile: str, slack: int, tmp_path: Path
) -> None:
    cost = cost_in_process(profile, make_llama(size, tmp_path))
    assert cost.peak_bytes <= cost.final_bytes + cost.largest_block_bytes + slack
    assert cost.final_bytes <= cost.meant_bytes + SELF_TEST_BYTES
