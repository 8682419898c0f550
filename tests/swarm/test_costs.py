"""What a block costs follows from a model's configuration by the reference rule, or is not told at all."""

from collections.abc import Callable
from typing import Any

import pytest
from nectar_protocol.modelentry import BlockCost
from nectar_swarm.costs import block_costs
from nectar_swarm.errors import UnsupportedModelError

from tests.families.configs import ALL

# Of tests/families: hidden 64, 4 heads of 16 with 2 of keys, a feed-forward of 96 or experts of 32.
ATTENTION = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64)
NORMS = 2 * 2 * 64
POSITION = 4 * 4 * 16


def dense(intermediate: int) -> int:
    return 2 * 3 * 64 * intermediate


@pytest.mark.parametrize(
    ("family", "costs"),
    [
        ("llama", [BlockCost(ATTENTION + dense(96) + NORMS, POSITION)] * 6),
        ("mistral", [BlockCost(ATTENTION + dense(96) + NORMS, POSITION, 8)] * 6),
        # Two of four experts, and the router.
        ("mixtral", [BlockCost(ATTENTION + 2 * dense(96) + NORMS + 2 * 64 * 4, POSITION)] * 6),
    ],
)
def test_costs_are_the_reference_rules(family: str, costs: list[BlockCost]) -> None:
    assert list(block_costs(ALL[family]())) == costs


@pytest.mark.parametrize(
    ("family", "windows"),
    [
        ("gemma2", [8, 0, 8, 0, 8, 0]),
        ("llama4_text", [8, 8, 8, 0, 8, 8]),
        ("qwen2", [0, 0, 0, 8, 8, 8]),
        ("qwen3", [0] * 6),
        ("modernbert-decoder", [0, 8, 8, 0, 8, 8]),
    ],
)
def test_windows_and_chunks_are_told_by_block(family: str, windows: list[int]) -> None:
    assert [cost.window for cost in block_costs(ALL[family]())] == windows


def test_linear_blocks_have_a_state_and_look_at_no_positions() -> None:
    """Four heads of 16 × 16 numbers in five of six blocks; the sixth attends."""
    costs = block_costs(ALL["qwen3_next"]())
    assert [cost.position_flops for cost in costs] == [0, 0, 0, POSITION, 0, 0]
    assert all(cost.token_flops > 4 * 4 * 16 * 16 for cost in costs)


def test_latent_attention_counts_whole_keys_and_values() -> None:
    """Keys of 16 + 8, values of 16."""
    assert {cost.position_flops for cost in block_costs(ALL["deepseek_v3"]())} == {2 * 4 * (24 + 16)}


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "gpt_oss", "granitemoe", "llama4_text", "phimoe"])
def test_of_experts_those_count_that_take_part(family: str) -> None:
    """One more a token costs one more."""
    names = ("num_experts_per_tok",)
    one, two, three = (cost_with(family, dict.fromkeys(names, active)) for active in (1, 2, 3))
    assert three - two == two - one > 0


def cost_with(family: str, changes: dict[str, Any]) -> int:
    config = ALL[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    return block_costs(config)[-1].token_flops


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (ALL["lfm2"], "'conv'"),
        (ALL["falcon_h1"], "'hybrid'"),
        (ALL["nemotron_h"], "'mlp'"),
        (ALL["jamba"], "state"),
    ],
)
def test_what_the_rule_does_not_tell_is_not_guessed(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        block_costs(make())
