"""Units: the same for everybody, whatever a session was cut into."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.announcement import Profile
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.identity import PublicKey
from nectar_protocol.metering import check_units, units
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE, Policy, Swarm
from nectar_protocol.receipt import Receipt, Work
from nectar_protocol.record import MAX_COUNT
from nectar_protocol.reference import Attention, Experts, LinearAttention, active_parameters, reference_flops

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "metering.json").read_text())
ENTRIES = {case["name"]: ModelEntry.unpack(bytes.fromhex(case["packed"])) for case in VECTORS["entries"]}
POLICIES = {case["name"]: Policy.unpack(bytes.fromhex(case["packed"])) for case in VECTORS["policies"]}
POLICY, ENTRY = POLICIES["the defaults"], ENTRIES["one of two kinds"]

totals = st.integers(0, 10**7)
works = st.builds(Work, *[totals] * 7)
costs = st.builds(BlockCost, totals, st.integers(1, 10**7), st.integers(0, 4096))
entries = st.lists(costs, min_size=1, max_size=12).map(
    lambda blocks: ModelEntry(bytes(32), 1, AuditState.SHADOW, tuple(blocks))
)


def by_the_block(work: Work, blocks: tuple[BlockCost, ...], profile: Profile, policy: Policy) -> int:
    """The rule once more, block by block, in exact fractions."""

    def flops(tokens: int, context: int) -> int:
        return sum(
            cost.token_flops * tokens
            + cost.position_flops * (min(context, tokens * cost.window) if cost.window else context)
            for cost in blocks
        )

    total = Fraction(policy.prefill_ppm, 10**6) * flops(work.prefill_tokens, work.prefill_context)
    total += Fraction(policy.decode_ppm, 10**6) * flops(work.decode_tokens, work.decode_context)
    total += Fraction(policy.backward_ppm, 10**6) * flops(work.backward_tokens, work.backward_context)
    total += Fraction(policy.opening_ppm * policy.decode_ppm, 10**12) * flops(work.reserved_tokens, 0)
    return int(total * Fraction(policy.profile_ppm(profile), 10**6) / 10**6)


@pytest.mark.parametrize("case", VECTORS["units"], ids=lambda case: case["name"])
def test_the_units_of_the_vectors(case: dict[str, Any]) -> None:
    work = Work(*(int(case["work"][name]) for name in Work._fields))
    entry, policy = ENTRIES[case["entry_name"]], POLICIES[case["policy_name"]]
    got = units(work, case["start"], case["stop"], Profile(case["profile"]), entry, policy)
    assert got == int(case["units"])
    assert got == by_the_block(work, entry.blocks[case["start"] : case["stop"]], Profile(case["profile"]), policy)


@pytest.mark.parametrize("kind", ["entries", "policies"])
def test_entries_and_policies_are_read_as_they_were_written(kind: str) -> None:
    for case, value in zip(VECTORS[kind], ({"entries": ENTRIES, "policies": POLICIES}[kind]).values(), strict=True):
        assert (value.pack().hex(), value.id.hex()) == (case["packed"], case["sha256"])
        assert value.version == case["fields"]["version"]


@pytest.mark.parametrize("case", VECTORS["invalid_entries"], ids=lambda case: case["name"])
def test_an_invalid_entry_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        ModelEntry.unpack(bytes.fromhex(case["packed"]))


@pytest.mark.parametrize("case", VECTORS["invalid_policies"], ids=lambda case: case["name"])
def test_an_invalid_policy_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Policy.unpack(bytes.fromhex(case["packed"]))


@given(st.sampled_from([POLICY, ENTRY]), st.data())
def test_a_policy_or_an_entry_with_one_byte_changed_is_another_one_or_none(
    value: Policy | ModelEntry, data: st.DataObject
) -> None:
    packed = bytearray(value.pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = type(value).unpack(bytes(packed))
    except MalformedError:
        return
    assert other.pack() == packed
    assert other.id != value.id


def test_the_example_policy_holds_the_numbers_of_the_vectors() -> None:
    assert EXAMPLE == POLICY
    with pytest.raises(MalformedError, match="open swarm has probes"):
        replace(EXAMPLE, swarm=Swarm.OPEN)
    replace(EXAMPLE, swarm=Swarm.OPEN, probes_ppm=3_000_000)


@given(entries, works, st.data())
def test_units_are_the_rule_computed_block_by_block(entry: ModelEntry, work: Work, data: st.DataObject) -> None:
    assert ModelEntry.unpack(entry.pack()) == entry
    start = data.draw(st.integers(0, len(entry.blocks) - 1))
    stop = data.draw(st.integers(start + 1, len(entry.blocks)))
    profile = data.draw(st.sampled_from(Profile))
    policy = data.draw(st.sampled_from(sorted(POLICIES.values(), key=lambda policy: policy.version)))
    assert units(work, start, stop, profile, entry, policy) == by_the_block(
        work, entry.blocks[start:stop], profile, policy
    )


@given(entries, works, works)
def test_more_work_is_never_fewer_units(entry: ModelEntry, work: Work, more: Work) -> None:
    stop = len(entry.blocks)
    later = Work(*(a + b for a, b in zip(work, more, strict=True)))
    assert units(later, 0, stop, Profile.BF16, entry, POLICY) >= units(work, 0, stop, Profile.BF16, entry, POLICY)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50), st.integers(1, 4096))
def test_a_window_charges_at_least_each_token_by_itself_and_never_more_than_full_ones(
    positions: list[int], window: int
) -> None:
    cost = BlockCost(0, 1, window)
    entry = ModelEntry(bytes(32), 1, AuditState.SHADOW, (cost,))
    charged = entry.span(0, 1).flops(len(positions), sum(positions))
    assert sum(min(position, window) for position in positions) <= charged <= len(positions) * window


def test_the_quarter_of_a_32b_model_costs_what_the_economy_says() -> None:
    block = reference_flops(500_000_000, Attention(40, 128, 128))
    entry = replace(ENTRY, blocks=(block,) * 16)
    worth = units(Work(0, 128, 0, 64, 0), 0, 16, Profile.BF16, entry, POLICY)
    assert worth == 2_048_000 + 4_096_000


def test_a_decode_costs_four_prefills_a_backward_two_and_a_quantised_token_less() -> None:
    def worth(profile: Profile = Profile.BF16, **work: int) -> int:
        return units(Work(**work), 0, 1, profile, ENTRY, POLICY)

    one = worth(prefill_tokens=1000)
    assert (worth(decode_tokens=1000), worth(backward_tokens=1000)) == (4 * one, 2 * one)
    assert (worth(Profile.INT8, prefill_tokens=1000), worth(Profile.NF4, prefill_tokens=1000)) == (
        one * 9 // 10,
        one * 6 // 10,
    )
    assert worth(reserved_tokens=1000) == 4 * one // 50


def test_a_receipt_with_other_units_than_its_work_is_refused() -> None:
    server, session = PublicKey(bytes(32)), PublicKey(bytes([1]) * 32)
    work = Work(192, 128, 8_128, 64, 10_208)
    due = units(work, 0, 6, Profile.BF16, ENTRY, POLICY)
    receipt = Receipt(bytes(32), server, session, bytes(32), 1, 0, 6, Profile.BF16, False, work, due)
    check_units(receipt, ENTRY, POLICY)
    for wrong in (replace(receipt, units=due + 1), replace(receipt, units=due - 1), replace(receipt, stop=5)):
        with pytest.raises(ConflictError, match="comes to"):
            check_units(wrong, ENTRY, POLICY)
    with pytest.raises(ConflictError, match="6 blocks"):
        check_units(replace(receipt, stop=7), ENTRY, POLICY)


def test_more_units_than_a_receipt_holds_are_refused() -> None:
    with pytest.raises(MalformedError, match="more than a receipt holds"):
        units(Work(0, 0, 0, MAX_COUNT, MAX_COUNT), 0, 6, Profile.BF16, ENTRY, POLICY)


# The reference rule


def test_plain_attention_costs_two_flops_a_weight_and_four_a_head_and_dimension_at_each_position() -> None:
    assert reference_flops(1_000, Attention(32, 128, 128)) == BlockCost(2_000, 4 * 32 * 128)


def test_a_window_is_kept_and_latent_attention_counts_keys_and_values_apart() -> None:
    assert reference_flops(1_000, Attention(8, 64, 64, window=512)).window == 512
    assert reference_flops(1_000, Attention(128, 192, 128)).position_flops == 2 * 128 * (192 + 128)


def test_linear_attention_costs_its_state_at_each_token_and_nothing_by_position() -> None:
    assert reference_flops(1_000, LinearAttention(4, 16, 32)) == BlockCost(2_000 + 4 * 4 * 16 * 32, 0)


def test_a_mixture_counts_the_experts_that_take_part_and_its_router() -> None:
    assert active_parameters(64 * 100 + 7, Experts(64, 8, 100)) == 807
    assert reference_flops(64 * 100 + 7, Attention(1, 1, 1), Experts(64, 8, 100)).token_flops == 1_614


@pytest.mark.parametrize("experts", [Experts(8, 0, 1), Experts(8, 9, 1), Experts(8, 2, 13)])
def test_experts_that_a_block_cannot_have_are_refused(experts: Experts) -> None:
    with pytest.raises(MalformedError, match="not the experts"):
        active_parameters(100, experts)


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(MalformedError):
        reference_flops(0, Attention(1, 1, 1))
