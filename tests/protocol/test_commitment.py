"""A commitment: the same however a step list is cut, another for anything else that was asked or answered."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import Commitment, StepHeader, StepKind, digests
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PublicKey
from nectar_protocol.record import MAX_COUNT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "commitment.json").read_text())
SALT = bytes.fromhex(VECTORS["salt"])


def begin(**changes: Any) -> Commitment:
    given = {
        "hold": bytes.fromhex(VECTORS["hold"]),
        "server": PublicKey(bytes.fromhex(VECTORS["server"])),
        "session": PublicKey(bytes.fromhex(VECTORS["session"])),
        "start": VECTORS["start"],
        "stop": VECTORS["stop"],
        "profile": Profile(VECTORS["profile"]),
        "dtype": VECTORS["dtype"],
        "salt": SALT,
    }
    return Commitment.begin(**given | changes)


def header(case: dict[str, Any]) -> StepHeader:
    adapter = bytes.fromhex(case["adapter"])
    return StepHeader(StepKind(case["kind"]), case["position"], tuple(case["reorder"]), adapter)


def rows_of(case: dict[str, Any], name: str) -> list[list[bytes]]:
    return [[bytes.fromhex(digest) for digest in row] for row in case[name]]


START = begin()
PLAIN = StepHeader(StepKind.FORWARD, 5)
ROWS, POSITIONS, VECTOR = 3, 6, 4
INPUT, OUTPUT = (bytes((n * k) % 251 for n in range(ROWS * POSITIONS * VECTOR)) for k in (3, 7))
INS, OUTS = digests(SALT, INPUT, ROWS, POSITIONS), digests(SALT, OUTPUT, ROWS, POSITIONS)


def test_the_steps_of_the_vectors() -> None:
    value = START
    assert value.value.hex() == VECTORS["begin"]
    for case in VECTORS["steps"]:
        for side in ("input", "output"):
            data = bytes.fromhex(case[side])
            assert digests(SALT, data, VECTORS["rows"], case["positions"]) == rows_of(case, f"{side}_digests")
        value = value.after(header(case), rows_of(case, "input_digests"), rows_of(case, "output_digests"))
        assert (value.value.hex(), str(value.number)) == (case["commitment"], case["number"])


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_step_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        START.after(header(case), rows_of(case, "input_digests"), rows_of(case, "output_digests"))


@given(st.sets(st.integers(1, POSITIONS - 1)))
def test_a_replayed_prefill_single_steps_and_any_cut_between_give_the_same(cuts: set[int]) -> None:
    whole = START.after(PLAIN, INS, OUTS)
    value, edges = START, [0, *sorted(cuts), POSITIONS]
    for first, last in pairwise(edges):
        some = [[row[first:last] for row in side] for side in (INS, OUTS)]
        value = value.after(replace(PLAIN, position=PLAIN.position + first), *some)
    assert value == whole
    assert value.number == ROWS * POSITIONS


def test_a_session_goes_on_from_the_commitment_and_the_count_of_its_last_receipt() -> None:
    halves = [[[row[first:last] for row in side] for side in (INS, OUTS)] for first, last in ((0, 2), (2, POSITIONS))]
    before = START.after(PLAIN, *halves[0])
    resumed = Commitment(before.value, 2 * ROWS).after(replace(PLAIN, position=PLAIN.position + 2), *halves[1])
    assert resumed == START.after(PLAIN, INS, OUTS)


def test_a_reorder_that_changes_nothing_is_none() -> None:
    assert START.after(replace(PLAIN, reorder=(0, 1, 2)), INS, OUTS) == START.after(PLAIN, INS, OUTS)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": StepKind.BACKWARD},
        {"position": 6},
        {"reorder": (0, 0, 2)},
        {"reorder": (2, 1, 0)},
        {"adapter": bytes(31) + b"\1"},
    ],
    ids=str,
)
def test_another_header_is_another_commitment(change: dict[str, Any]) -> None:
    assert START.after(replace(PLAIN, **change), INS, OUTS) != START.after(PLAIN, INS, OUTS)


@given(st.sampled_from(["in", "out"]), st.integers(0, len(INPUT) - 1), st.integers(1, 255))
def test_any_byte_of_any_vector_counts(side: str, offset: int, mask: int) -> None:
    data = bytearray(INPUT if side == "in" else OUTPUT)
    data[offset] ^= mask
    changed = digests(SALT, bytes(data), ROWS, POSITIONS)
    step = (changed, OUTS) if side == "in" else (INS, changed)
    assert START.after(PLAIN, *step) != START.after(PLAIN, INS, OUTS)


@pytest.mark.parametrize(
    "change",
    [
        {"hold": bytes(32)},
        {"server": PublicKey(bytes(32))},
        {"session": PublicKey(bytes(32))},
        {"start": 1},
        {"stop": 7},
        {"profile": Profile.F32},
        {"dtype": 0},
        {"salt": bytes(32)},
    ],
    ids=str,
)
def test_a_commitment_begins_with_everything_that_names_the_session_on_a_node(change: dict[str, Any]) -> None:
    assert begin(**change) != START


def test_another_salt_gives_other_digests() -> None:
    assert digests(bytes(32), INPUT, ROWS, POSITIONS)[0][0] != INS[0][0]


@pytest.mark.parametrize(("rows", "positions"), [(0, 1), (1, 0), (-1, 1), (5, 1)])
def test_data_that_do_not_divide_into_vectors_are_refused(rows: int, positions: int) -> None:
    with pytest.raises(MalformedError, match="not the vectors"):
        digests(SALT, bytes(72), rows, positions)


def test_a_short_salt_too_many_rows_and_too_many_tokens_are_refused() -> None:
    with pytest.raises(MalformedError, match="salt"):
        digests(SALT[1:], INPUT, ROWS, POSITIONS)
    with pytest.raises(MalformedError, match="32 bytes each"):
        begin(salt=SALT[1:])
    with pytest.raises(MalformedError, match="512 rows"):
        START.after(PLAIN, INS[:1] * 513, OUTS[:1] * 513)
    with pytest.raises(MalformedError, match="at most"):
        Commitment(START.value, MAX_COUNT).after(PLAIN, INS, OUTS)
