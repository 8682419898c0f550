"""A hold: one encoding, the ledger's signature, and revisions that take nothing back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.errors import ConflictError, MalformedError, ProtocolError
from nectar_protocol.hold import MAX_LINES, Hold, Line, SignedHold, check_extends, sorted_lines
from nectar_protocol.identity import PublicKey
from nectar_protocol.money import MAX_UCR, charge_ucr
from nectar_protocol.record import MAX_COUNT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hold.json").read_text())
LEDGER = PublicKey(bytes.fromhex(VECTORS["ledger_key"]))
PLAIN = SignedHold.unpack(bytes.fromhex(VECTORS["valid"][0]["packed"])).hold

keys = st.binary(min_size=32, max_size=32).map(PublicKey)
caps = st.integers(1, 10**9)
lines = st.dictionaries(keys, caps, min_size=1, max_size=6).map(
    lambda some: sorted_lines(Line(server, cap) for server, cap in some.items())
)


def check(data: bytes) -> None:
    SignedHold.unpack(data).verify(LEDGER)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_the_packed_bytes_are_the_struct_of_the_document_and_verify(case: dict[str, Any]) -> None:
    packed, f = bytes.fromhex(case["packed"]), case["fields"]
    hold = SignedHold.unpack(packed)
    hold.verify(LEDGER)
    assert hold.pack() == packed
    head = b"NECHOLD1" + b"".join(bytes.fromhex(f[name]) for name in ("ledger", "id", "session", "model", "policy"))
    head += int(f["expires_ms"]).to_bytes(8, "big") + f["revision"].to_bytes(2, "big")
    head += bytes([f["weight"], sum(1 << p for p in f["profiles"])]) + len(f["lines"]).to_bytes(2, "big") + bytes(2)
    tail = b"".join(bytes.fromhex(line["server"]) + int(line["cap_units"]).to_bytes(8, "big") for line in f["lines"])
    assert packed[:-64] == head + tail


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_hold_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        check(bytes.fromhex(case["packed"]))


@pytest.mark.parametrize("case", VECTORS["revisions"], ids=lambda case: case["name"])
def test_a_revision_takes_nothing_back(case: dict[str, Any]) -> None:
    old, new = (Hold.unpack(bytes.fromhex(case[name])) for name in ("old", "new"))
    if case["extends"]:
        check_extends(old, new)
    else:
        with pytest.raises(ConflictError):
            check_extends(old, new)


@given(st.data())
def test_a_hold_with_one_byte_wrong_is_refused(data: st.DataObject) -> None:
    packed = bytearray(bytes.fromhex(data.draw(st.sampled_from(VECTORS["valid"]))["packed"]))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        check(bytes(packed))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: PLAIN.pack()[:176] + tail))
def test_any_bytes_are_the_only_encoding_of_a_hold_or_malformed(data: bytes) -> None:
    try:
        hold = SignedHold.unpack(data)
    except MalformedError:
        return
    assert hold.pack() == data


@given(lines, lines, st.integers(0, 10**6))
def test_lines_added_and_caps_raised_extend_and_going_back_does_not(
    some: tuple[Line, ...], more: tuple[Line, ...], later_ms: int
) -> None:
    old = replace(PLAIN, lines=some)
    sums = {line.server: line.cap_units for line in some}
    for line in more:
        sums[line.server] = sums.get(line.server, 0) + line.cap_units
    new = replace(
        old, revision=old.revision + 1, expires_ms=old.expires_ms + later_ms,
        lines=sorted_lines(Line(server, cap) for server, cap in sums.items()),
    )  # fmt: skip
    check_extends(old, new)
    with pytest.raises(ConflictError, match=r"gone|falls"):
        check_extends(replace(new, revision=1), replace(old, revision=2))


@given(lines, st.sampled_from([0, 1, 2, 4, 8]), st.integers(0, 10**6))
def test_no_receipts_within_the_caps_cost_more_than_is_set_aside(
    some: tuple[Line, ...], weight: int, price: int
) -> None:
    hold = replace(PLAIN, lines=some, weight=weight)
    assert sum(charge_ucr(line.cap_units, weight, price) for line in some) == hold.escrow_ucr(price)


def test_what_is_set_aside_is_bounded() -> None:
    top = replace(PLAIN, lines=tuple(replace(line, cap_units=MAX_COUNT) for line in PLAIN.lines))
    with pytest.raises(MalformedError, match=str(MAX_UCR)):
        top.escrow_ucr(1_000_000)


def test_a_node_finds_its_line() -> None:
    first = PLAIN.lines[0]
    assert PLAIN.line(first.server) == first
    assert PLAIN.line(PublicKey(bytes(32))) is None


def test_the_largest_hold_fits_into_an_open_message() -> None:
    many = sorted_lines(Line(PublicKey(n.to_bytes(32, "big")), 1) for n in range(MAX_LINES))
    assert len(replace(PLAIN, lines=many).pack()) + 64 <= 16 << 10
