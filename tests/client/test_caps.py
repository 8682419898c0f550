"""What a session sets aside: enough for what it may do, never more than its budget or its class allows."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from nectar.caps import Extent, Purchase, used_up
from nectar_protocol.announcement import Profile
from nectar_protocol.hold import Hold, Line, check_extends, sorted_lines
from nectar_protocol.metering import Meter
from nectar_protocol.policy import EXAMPLE

from tests.client.accounts import ENTRY, identity

METER = Meter.of(0, 4, Profile.F32, ENTRY, EXAMPLE)
NODES = [identity(number).public for number in range(2, 6)]
CAPS = st.dictionaries(st.sampled_from(NODES), st.integers(1, 10**9), min_size=1)


def hold_of(lines: tuple[Line, ...], weight: int) -> Hold:
    return Hold(
        bytes(32), bytes(32), identity(1).public, bytes(32), EXAMPLE.id, 1, 1, weight, frozenset(Profile), lines
    )


@given(st.integers(1, 64), st.integers(1, 10_000), st.integers(1, 20_000))
def test_a_cap_covers_every_position_once_with_room_for_drafts(rows: int, length: int, prompt: int) -> None:
    extent = Extent(rows, length, prompt)
    work = extent.work
    assert work.prefill_tokens + work.decode_tokens == work.reserved_tokens == rows * length
    assert work.prefill_context + work.decode_context == rows * (length * (length - 1) // 2)
    paid = Purchase(1, EXAMPLE).wanted(METER, extent)
    assert METER.units(work) <= paid <= METER.units(work) * 5 // 4 + 1
    assert Purchase(0, EXAMPLE).wanted(METER, extent) == min(paid, EXAMPLE.free_cap_units)


@given(CAPS, st.sampled_from([1, 2, 4, 8]), st.integers(0, 10**10))
def test_what_is_set_aside_is_within_the_budget(caps: dict, weight: int, budget_ucr: int) -> None:  # type: ignore[type-arg]
    purchase = Purchase(weight, EXAMPLE, budget_ucr)
    lines = purchase.lines(caps)
    if not lines:
        assert budget_ucr // weight < sum(caps.values()) + EXAMPLE.hold_least_ucr
        return
    escrow_ucr = hold_of(lines, weight).escrow_ucr(EXAMPLE.price)
    assert escrow_ucr <= budget_ucr
    if budget_ucr >= weight * (sum(caps.values()) + EXAMPLE.hold_least_ucr + len(caps)):
        assert escrow_ucr >= EXAMPLE.hold_least_ucr
        assert all(line.cap_units >= caps[line.server] for line in lines)


@given(CAPS, CAPS, st.sampled_from([0, 1, 8]), st.integers(0, 10**10))
def test_a_revision_takes_nothing_back_and_keeps_to_the_budget(
    held: dict,
    wanted: dict,
    weight: int,
    more_ucr: int,  # type: ignore[type-arg]
) -> None:
    before = hold_of(sorted_lines(Line(node, cap) for node, cap in held.items()), weight)
    escrow_ucr = before.escrow_ucr(EXAMPLE.price)
    purchase = Purchase(weight, EXAMPLE, escrow_ucr + more_ucr)
    after = replace(before, revision=2, lines=purchase.raised(before, wanted))
    check_extends(before, after)
    assert after.escrow_ucr(EXAMPLE.price) <= escrow_ucr + more_ucr
    if not weight:
        most = EXAMPLE.free_cap_units
        assert all(line.cap_units <= max(most, held.get(line.server, 0)) for line in after.lines)


def test_a_cap_is_raised_when_three_quarters_are_used() -> None:
    lines = sorted_lines(Line(node, 100) for node in NODES[:2])
    assert used_up({NODES[0]: 74, NODES[1]: 75}, lines) == {NODES[1]: 200}


def test_without_free_caps_there_are_no_free_holds() -> None:
    assert Purchase(0, replace(EXAMPLE, free_cap_units=0)).lines({NODES[0]: 1}) == ()
