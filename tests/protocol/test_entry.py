"""Entries of a log: one layout per kind, one encoding, and sealed parts that only their owner can show."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.entries import (
    MAX_SHARES,
    MAX_VERDICTS,
    BatchClosed,
    BatchOutcome,
    CloseReason,
    EmissionTo,
    Emitted,
    EpochClosed,
    HoldClosed,
    Resumed,
    Settled,
    Share,
    VerdictSealed,
)
from nectar_protocol.entry import COMMANDS, KIND_OF, Body, Kind, entry_hash, pack_entry, parse_entry, seal, unseal
from nectar_protocol.errors import ConflictError, MalformedError, ProtocolError
from nectar_protocol.identity import PublicKey
from nectar_protocol.merkle import leaf_hash
from nectar_protocol.record import MAX_COUNT
from nectar_protocol.tiles import MAX_ENTRY_BYTES

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "entry.json").read_text())
VALID = {case["name"]: bytes.fromhex(case["packed"]) for case in VECTORS["valid"]}
KEY = PublicKey(bytes(31) + b"\1")

counts = st.integers(0, MAX_COUNT)
digests = st.binary(min_size=32, max_size=32)
keys = st.binary(min_size=32, max_size=32).map(PublicKey)
shares = st.builds(Share, keys, keys, counts, counts)
sealed_verdicts = st.dictionaries(counts, st.binary(max_size=40), max_size=4).map(
    lambda found: tuple(sorted(found.items()))
)
settlement = parse_entry(VALID["a settlement"]).body
assert isinstance(settlement, Settled)
bodies = st.one_of(
    st.builds(Settled, counts, counts, counts, counts, st.just(settlement.receipt)),
    st.builds(
        HoldClosed, digests, counts, counts, st.sampled_from([CloseReason.FINAL, CloseReason.EXPIRED]), st.booleans()
    ),
    st.builds(VerdictSealed, digests),
    st.builds(BatchClosed, counts, st.sampled_from(BatchOutcome), counts, sealed_verdicts),
    st.builds(Emitted, counts, st.sampled_from(EmissionTo), st.lists(shares, min_size=1, max_size=3).map(tuple)),
    st.builds(lambda a, b: EpochClosed(1, 2, 3, max(a, b), min(a, b), max(a, b) - min(a, b), 0, 0, 0), counts, counts),
    st.builds(Resumed, counts),
)


def uint(value: str | int, size: int) -> bytes:
    return int(value).to_bytes(size, "big")


def prefixed(packed: str) -> bytes:
    return uint(len(packed) // 2, 2) + bytes.fromhex(packed)


def encode(kind: Kind, f: dict[str, Any]) -> bytes:
    """The document's layout of a body, from the fields as the vectors have them."""
    if "command" in f:
        return bytes.fromhex(f["packed"])
    match kind:
        case Kind.GENESIS:
            keys = [bytes.fromhex(f[name]) for name in ("operator", "publisher", "holds", "log", "policy")]
            return uint(len(f["network"]), 1) + f["network"].encode() + b"".join(keys)
        case Kind.HOLD:
            return prefixed(f["hold"]) + bytes.fromhex(f["seal"])
        case Kind.SETTLE:
            amounts = [uint(f[name], 8) for name in ("hold_account", "batch_account", "paid_ucr", "fee_ucr")]
            return b"".join(amounts) + bytes.fromhex(f["receipt"])
        case Kind.HOLD_CLOSE:
            amounts = [
                uint(f["account_number"], 8),
                uint(f["released_ucr"], 8),
                uint(f["reason"], 1),
                uint(f["whole"], 1),
            ]
            return bytes.fromhex(f["hold"]) + b"".join(amounts) + prefixed(f["asked"])
        case Kind.VERDICT:
            return bytes.fromhex(f["seal"])
        case Kind.BATCH_CLOSE:
            shown = [uint(v["index"], 8) + prefixed(v["sealed"]) for v in f["verdicts"]]
            head = uint(f["account_number"], 8) + uint(f["outcome"], 1) + uint(f["amount_ucr"], 8)
            return head + uint(len(shown), 2) + b"".join(shown)
        case Kind.EMISSION:
            parts = [
                bytes.fromhex(s["earner"] + s["account"]) + uint(s["units"], 8) + uint(s["amount_ucr"], 8)
                for s in f["shares"]
            ]
            return uint(f["epoch"], 8) + uint(f["to"], 1) + uint(len(parts), 2) + b"".join(parts)
    return b"".join(uint(value, 8) for value in f.values())


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_a_valid_entry_is_parsed_and_packed_again(case: dict[str, Any]) -> None:
    packed = bytes.fromhex(case["packed"])
    entry = parse_entry(packed)
    assert (entry.kind, entry.time_ms) == (case["kind"], int(case["time_ms"]))
    assert pack_entry(entry.time_ms, entry.body) == packed
    assert entry_hash(packed).hex() == case["sha256"] == hashlib.sha256(packed).hexdigest()
    assert leaf_hash(packed).hex() == case["leaf"] == hashlib.sha256(b"\0" + packed).hexdigest()


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_an_entry_is_the_struct_of_the_document(case: dict[str, Any]) -> None:
    header = uint(1, 1) + uint(case["kind"], 1) + bytes(2) + uint(case["time_ms"], 8)
    assert bytes.fromhex(case["packed"]) == header + encode(Kind(case["kind"]), case["fields"])


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_entry_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        parse_entry(bytes.fromhex(case["packed"]))


def test_every_kind_of_entry_and_command_has_a_vector() -> None:
    assert {parse_entry(data).kind for data in VALID.values()} == set(Kind)
    assert {case["fields"]["command"] for case in VECTORS["valid"] if "command" in case["fields"]} == {
        kind.NAME for kinds in COMMANDS.values() for kind in kinds
    }
    assert set(KIND_OF.values()) == set(Kind)


# Encodings


@given(st.integers(0, 2**64 - 1), bodies)
def test_what_is_packed_is_parsed(time_ms: int, body: Body) -> None:
    entry = parse_entry(pack_entry(time_ms, body))
    assert (entry.kind, entry.time_ms, entry.body) == (KIND_OF[type(body)], time_ms, body)


@given(st.sampled_from(sorted(VALID)), st.data())
def test_a_changed_entry_is_refused_or_another_one(name: str, data: st.DataObject) -> None:
    packed = bytearray(VALID[name])
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        entry = parse_entry(bytes(packed))
    except ProtocolError:
        return
    assert pack_entry(entry.time_ms, entry.body) == packed
    assert entry != parse_entry(VALID[name])


@given(st.sampled_from(sorted(VALID)), st.data())
def test_a_cut_or_longer_entry_is_refused(name: str, data: st.DataObject) -> None:
    packed = VALID[name]
    with pytest.raises(ProtocolError):
        parse_entry(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(ProtocolError):
        parse_entry(packed + data.draw(st.binary(min_size=1, max_size=400)))


@given(st.sampled_from(sorted(Kind)), st.binary(max_size=500))
def test_any_bytes_are_the_only_encoding_of_an_entry_or_malformed(kind: Kind, body: bytes) -> None:
    data = bytes([1, kind]) + bytes(10) + body
    try:
        entry = parse_entry(data)
    except MalformedError:
        return
    assert pack_entry(entry.time_ms, entry.body) == data


@given(st.binary(max_size=64))
def test_any_bytes_are_an_entry_or_malformed(data: bytes) -> None:
    try:
        entry = parse_entry(data)
    except MalformedError:
        return
    assert pack_entry(entry.time_ms, entry.body) == data


# Bounds


def test_the_largest_entries_fit_into_a_bundle() -> None:
    emitted = Emitted(1, EmissionTo.PAYEES, (Share(KEY, KEY, 0, 1),) * MAX_SHARES)
    verdict = bytes(32 + 400)
    closed = BatchClosed(1, BatchOutcome.BURNED, 1, tuple((n, verdict) for n in range(MAX_VERDICTS)))
    assert all(len(pack_entry(0, body)) <= MAX_ENTRY_BYTES for body in (emitted, closed))


def test_more_shares_or_verdicts_than_that_are_refused() -> None:
    share = Share(KEY, KEY, 0, 1)
    with pytest.raises(MalformedError, match="255 shares"):
        Emitted(1, EmissionTo.PAYEES, (share,) * (MAX_SHARES + 1))
    with pytest.raises(MalformedError, match="64 verdicts"):
        BatchClosed(1, BatchOutcome.BURNED, 1, tuple((n, b"") for n in range(MAX_VERDICTS + 1)))
    whole = pack_entry(0, Emitted(1, EmissionTo.PAYEES, (share,)))
    with pytest.raises(MalformedError, match="255 shares"):
        parse_entry(whole[:21] + b"\1\0" + share.pack() * 256)


@pytest.mark.parametrize(
    "change",
    [{"emitted_ucr": 50_000_001}, {"burned_ucr": 0}, {"wallets_ucr": -1}, {"number": MAX_COUNT + 1}],
    ids=str,
)
def test_books_that_do_not_add_up_are_never_made(change: dict[str, int]) -> None:
    books = parse_entry(VALID["an epoch"]).body
    assert isinstance(books, EpochClosed)
    with pytest.raises(MalformedError):
        replace(books, **change)


def test_a_command_that_is_private_stands_in_no_entry_by_itself() -> None:
    for name in ("open a hold", "a verdict", "close a hold"):
        assert name not in VALID
    asked = parse_entry(VALID["a line given back"]).body
    assert isinstance(asked, HoldClosed)
    assert asked.asked is not None
    with pytest.raises(MalformedError, match="no entry"):
        pack_entry(0, asked.asked)


# Sealed parts


@pytest.mark.parametrize("case", VECTORS["seals"], ids=lambda case: case["seal"][:8])
def test_a_sealed_part_is_shown_by_its_bytes(case: dict[str, Any]) -> None:
    sealed, sealing = bytes.fromhex(case["sealed"]), bytes.fromhex(case["seal"])
    assert seal(sealed) == sealing
    assert unseal(sealed, sealing) == sealed[32:]


@pytest.mark.parametrize("case", VECTORS["invalid_seals"], ids=lambda case: case["name"])
def test_another_part_than_what_was_sealed_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        unseal(bytes.fromhex(case["sealed"]), bytes.fromhex(VECTORS["seals"][1]["seal"]))


@given(st.binary(min_size=32, max_size=100), st.binary(min_size=32, max_size=100))
def test_a_seal_is_of_one_part(one: bytes, other: bytes) -> None:
    assert unseal(one, seal(one)) == one[32:]
    if one != other:
        with pytest.raises(ConflictError):
            unseal(other, seal(one))
