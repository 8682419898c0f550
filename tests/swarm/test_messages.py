"""Every message reads back as it was written, and bytes that are no message raise MalformedError or its like."""

import contextlib
import ipaddress
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.address import Address
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.errors import MalformedError, ProtocolError
from nectar_protocol.hold import Hold, Line, SignedHold, sorted_lines
from nectar_protocol.identity import PublicKey, peer_id
from nectar_protocol.manifest import ModelID
from nectar_protocol.opening import HistoryRequest
from nectar_protocol.receipt import Receipt, Work
from nectar_protocol.record import MAX_COUNT
from nectar_swarm.bills import Bill, BilledStep, Countersignature
from nectar_swarm.frames import Decoder, Kind, encode
from nectar_swarm.messages import (
    MAX_HOLD,
    MAX_TEXT,
    Error,
    ErrorCode,
    Hello,
    Neighbours,
    Open,
    Ping,
    Routed,
    Step,
)
from nectar_swarm.past import HistoryCall, Past
from nectar_swarm.status import Status
from nectar_swarm.tensors import CODES, MAX_BATCH

VERSIONS = (1, 2, 3)
NEWEST = VERSIONS[-1]
VECTORS = {
    version: json.loads((Path(__file__).parents[1] / "vectors" / f"wire_v{version}.json").read_text())
    for version in VERSIONS
}
# Fields that a version does not carry, and what is read in their place.
NEWER: dict[int, dict[str, Any]] = {
    1: {"retry_after_ms": 0, "wait_us": 0, "decode_us": 0, "ledger": b""},
    2: {"ledger": b""},
    3: {},
}


MESSAGES: dict[Kind, Any] = {
    Kind.HELLO: Hello,
    Kind.PING: Ping,
    Kind.PONG: Ping,
    Kind.OPEN: Open,
    Kind.REROUTE: Neighbours,
    Kind.ROUTED: Routed,
    Kind.STEP: Step,
    Kind.ERROR: Error,
    Kind.STATUS: Status,
    Kind.BILL: Bill,
    Kind.COUNTERSIGN: Countersignature,
    Kind.HOLD: SignedHold,
    Kind.HISTORY: HistoryCall,
    Kind.PAST: Past,
}
OLD_KINDS = set(Kind) - {Kind.BILL, Kind.COUNTERSIGN, Kind.HOLD, Kind.HISTORY, Kind.PAST}  # before version 3


u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
public_keys = st.binary(min_size=32, max_size=32).map(PublicKey)
peers = public_keys.filter(any).map(peer_id)
ips = st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None)
addresses = st.builds(Address, ips, st.integers(1, 65535), st.none() | public_keys)
texts = st.text(max_size=80)


def hidden_states(shape: tuple[int, int, int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


hidden = st.builds(
    hidden_states,
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 8)),
    st.sampled_from(sorted(CODES, key=CODES.__getitem__)),
    st.integers(0, 1000),
)
neighbours = st.builds(
    Neighbours,
    generation=u32,
    prev=st.none() | peers,
    next=st.none() | peers,
    next_addresses=st.lists(addresses, max_size=8).map(tuple),
    sent=u32,
    settled=u32,
)
opens = st.builds(
    Open,
    model=st.binary(min_size=32, max_size=32).map(ModelID),
    start=u16,
    stop=u16,
    max_length=u32,
    dtype=st.sampled_from(sorted(CODES, key=CODES.__getitem__)),
    pads=st.lists(u32, min_size=1, max_size=8).map(tuple),
    neighbours=neighbours,
    hold=st.binary(max_size=100),
)
steps = st.tuples(st.integers(1, 1 << 31), st.integers(0, 1000)).flatmap(
    lambda numbers: st.builds(
        Step,
        first=st.just(numbers[0]),
        last=st.just(sum(numbers)),
        position=u32,
        hidden=hidden,
        reorder=st.lists(st.integers(0, MAX_BATCH - 1), max_size=6).map(tuple),
    )
)
errors = st.builds(
    Error, code=st.sampled_from(ErrorCode), text=texts, generation=u32, peer=st.none() | peers, retry_after_ms=u32
)
statuses = st.builds(
    Status, kv_free=u64, kv_total=u64, sessions=u32, queued=u32, blocks=u16, name=texts, model=texts, device=texts,
    dtype=texts, version=texts, wait_us=u32, decode_us=u32, ledger=st.just(b"") | public_keys,
)  # fmt: skip
digests = st.binary(min_size=32, max_size=32)
totals = st.integers(0, MAX_COUNT)
receipts = st.builds(
    Receipt, hold=digests, server=st.just(PublicKey(bytes(32))), session=st.just(PublicKey(bytes([1] * 32))),
    commitment=digests, seq=st.integers(1, MAX_COUNT), start=st.integers(0, 9), stop=st.integers(10, 20),
    profile=st.sampled_from(Profile), final=st.booleans(), units=totals,
    work=st.builds(Work, totals, st.integers(1, 9), totals, st.integers(1, 9), totals, st.integers(1, 9), totals),
)  # fmt: skip
signatures = st.binary(min_size=64, max_size=64)


@st.composite
def bills(draw: st.DrawFn) -> Bill:
    rows = draw(st.integers(1, 3))

    def step() -> BilledStep:
        positions = draw(st.integers(1, 3))
        vectors = st.lists(st.lists(digests, min_size=positions, max_size=positions), min_size=rows, max_size=rows)
        order = tuple(draw(st.permutations(range(rows)))) if draw(st.booleans()) else ()
        header = StepHeader(draw(st.sampled_from(StepKind)), draw(u32), order)
        first = draw(st.integers(1, 1000))
        return BilledStep(first, first + draw(st.integers(0, 9)), header, draw(vectors), draw(vectors))

    steps = tuple(step() for _ in range(draw(st.integers(0, 2))))
    return Bill(rows, steps, draw(receipts), draw(signatures))


holds = st.builds(
    Hold, digests, digests, public_keys, digests, digests, totals, st.integers(1, 9), st.sampled_from([0, 1, 2, 4, 8]),
    st.sets(st.sampled_from(Profile), min_size=1).map(frozenset),
    st.dictionaries(public_keys, st.integers(1, MAX_COUNT), min_size=1, max_size=3).map(
        lambda caps: sorted_lines(Line(key, cap) for key, cap in caps.items())
    ),
)  # fmt: skip
requests = st.builds(HistoryRequest, public_keys, digests, public_keys, totals)
credit_messages = st.one_of(
    bills(), st.builds(Countersignature, u64, signatures), st.builds(SignedHold, holds, signatures),
    st.builds(HistoryCall, requests, signatures), st.builds(Past, st.just(3), st.integers(1, 3), steps),
    st.just(Past(0, 0, None)),
)  # fmt: skip
messages = st.one_of(
    st.builds(Hello, u16, u16), st.builds(Ping, u32, u32), neighbours, opens, st.builds(Routed, u32), steps, errors,
    statuses, credit_messages,
)  # fmt: skip

OPEN = Open(ModelID(bytes(32)), 0, 4, 100, torch.float32, (0, 2), Neighbours(1, None, None))
PADS_AT = 32 + 2 + 2 + 4 + 1  # where the batch stands in OPEN


def pack(message: Any, version: int) -> bytes:
    return bytes(message.pack(version) if isinstance(message, Error | Status) else message.pack())


def unpack(kind: Any, data: bytes, version: int) -> Any:
    return kind.unpack(data, version) if kind in (Error, Status) else kind.unpack(data)


def in_version(version: int, message: Any) -> Any:
    """What a peer of an older version makes of a message."""
    return replace(message, **{name: value for name, value in NEWER[version].items() if name in vars(message)})


# Round trips


@given(messages)
def test_a_message_reads_back_as_it_was_written(message: Any) -> None:
    read = unpack(type(message), pack(message, NEWEST), NEWEST)
    assert read == message
    assert pack(read, NEWEST) == pack(message, NEWEST)
    if isinstance(message, Step):
        assert read.hidden.dtype == message.hidden.dtype
        assert torch.equal(read.hidden, message.hidden)


@given(messages, st.sampled_from(VERSIONS[:-1]))
def test_in_an_older_version_a_message_reads_back_without_what_later_ones_added(message: Any, version: int) -> None:
    old = in_version(version, message)
    assert unpack(type(message), pack(message, version), version) == old
    assert pack(old, version) == pack(message, version)


@given(st.sampled_from([ErrorCode.BUSY, ErrorCode.DENIED]), st.text(min_size=300, max_size=1200))
def test_an_error_of_any_length_of_text_can_be_sent(code: ErrorCode, text: str) -> None:
    read = Error.unpack(Error(code, text).pack(2), 2)
    assert text.startswith(read.text)
    assert len(read.text.encode()) <= MAX_TEXT


def test_a_text_is_cut_between_characters() -> None:
    assert Error.unpack(Error(ErrorCode.BUSY, "a" + "…" * 1000).pack(2), 2).text == "a" + "…" * 341


def test_a_status_of_long_texts_can_be_sent() -> None:
    status = Status(1, 2, 3, 4, 5, *("é" * 2000 for _ in range(5)))
    assert Status.unpack(status.pack(2), 2) == Status(1, 2, 3, 4, 5, *("é" * (MAX_TEXT // 2) for _ in range(5)))


def test_a_later_version_may_append_to_a_greeting_and_a_status() -> None:
    assert Hello.unpack(Hello(1, 2).pack() + b"more") == Hello(1, 2)
    status = Status(1, 2, 3, 4, 5, "a", "b", "c", "d", "e")
    for version in VERSIONS:
        assert Status.unpack(status.pack(version) + b"more", version) == status


def test_the_client_is_nobody_among_the_neighbours() -> None:
    read = Neighbours.unpack(Neighbours(1, None, None, (), 2, 3).pack())
    assert (read.prev, read.next) == (None, None)


@given(opens)
def test_a_session_has_as_many_rows_as_pads(request: Open) -> None:
    assert Open.unpack(request.pack()).batch == len(request.pads)


# Refusals


@given(messages, st.sampled_from(list(MESSAGES.values())), st.sampled_from(VERSIONS), st.data())
def test_a_damaged_message_raises_nothing_but_a_protocol_error(
    message: Any, reader: Any, version: int, data: st.DataObject
) -> None:
    damaged = bytearray(pack(message, version))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut]), bytes(damaged) + b"\0"):
        kinds: tuple[Any, ...] = (reader, type(message))
        for kind in kinds:
            try:
                unpack(kind, candidate, version)
            except ProtocolError:
                continue


@given(st.binary(max_size=200), st.sampled_from(list(MESSAGES.values())), st.sampled_from(VERSIONS))
def test_random_bytes_raise_nothing_but_a_protocol_error(data: bytes, reader: Any, version: int) -> None:
    with contextlib.suppress(ProtocolError):
        unpack(reader, data, version)


@given(
    messages.filter(lambda message: not isinstance(message, Hello | Status)),
    st.binary(min_size=1, max_size=3),
    st.sampled_from(VERSIONS),
)
def test_bytes_too_many_or_too_few_are_refused(message: Any, more: bytes, version: int) -> None:
    data = pack(message, version)
    for wrong in (data + more, data[:-1]):
        with pytest.raises(ProtocolError):
            unpack(type(message), wrong, version)


@pytest.mark.parametrize("batch", [0, MAX_BATCH + 1, 0xFFFF])
def test_a_session_of_no_rows_or_too_many_is_refused(batch: int) -> None:
    data = bytearray(OPEN.pack())
    data[PADS_AT : PADS_AT + 2] = batch.to_bytes(2, "big")
    with pytest.raises(MalformedError, match="rows"):
        Open.unpack(bytes(data))


def test_an_unknown_dtype_of_a_session_is_refused() -> None:
    data = bytearray(OPEN.pack())
    data[PADS_AT - 1] = len(CODES)
    with pytest.raises(MalformedError, match="dtype"):
        Open.unpack(bytes(data))


def test_a_hold_over_the_limit_is_refused() -> None:
    with pytest.raises(MalformedError, match="hold"):
        Open.unpack(replace(OPEN, hold=bytes(MAX_HOLD + 1)).pack())
    assert Open.unpack(replace(OPEN, hold=bytes(MAX_HOLD)).pack()).hold == bytes(MAX_HOLD)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 5), (6, 5)])
def test_steps_that_are_no_range_are_refused(first: int, last: int) -> None:
    with pytest.raises(MalformedError, match="steps"):
        Step.unpack(Step(first, last, 0, torch.zeros(1, 1, 1)).pack())


def test_a_reorder_of_too_many_rows_is_refused() -> None:
    step = Step(1, 1, 0, torch.zeros(1, 1, 1), tuple(range(MAX_BATCH + 1)))
    with pytest.raises(MalformedError, match="rows"):
        Step.unpack(step.pack())


@pytest.mark.parametrize("code", [0, 10, 15, 19, 0xFFFF])
def test_an_unknown_error_code_is_refused(code: int) -> None:
    with pytest.raises(MalformedError, match="code"):
        Error.unpack(code.to_bytes(2, "big") + Error(ErrorCode.BUSY, "").pack(2)[2:], 2)


def test_texts_over_the_limit_or_not_utf8_are_refused() -> None:
    head = Error(ErrorCode.BUSY, "").pack(2)[:-2]
    with pytest.raises(MalformedError, match="text"):
        Error.unpack(head + (MAX_TEXT + 1).to_bytes(2, "big") + b"a" * (MAX_TEXT + 1), 2)
    with pytest.raises(MalformedError, match="UTF-8"):
        Error.unpack(head + b"\0\1\xff", 2)
    with pytest.raises(MalformedError, match="text"):
        Status.unpack(bytes(34) + (MAX_TEXT + 1).to_bytes(2, "big") + b"a" * 5000, 2)


def test_what_does_not_fit_its_field_is_not_sent() -> None:
    for message in (Routed(-1), Routed(1 << 32), Hello(1, 1 << 16), replace(OPEN, start=1 << 16)):
        with pytest.raises(MalformedError, match="does not fit"):
            message.pack()
    port = Address(ipaddress.IPv4Address("192.0.2.1"), 1)
    with pytest.raises(MalformedError, match="at most"):
        Neighbours(1, None, None, (port,) * 9).pack()


# Recorded frames: nodes of these wire versions are out there, so they must be read for as long as we speak them


def plain(value: Any) -> Any:
    """A field as the vectors write it."""
    match value:
        case None:
            return None
        case bytes():
            return value.hex()
        case Work():
            return {name: str(total) for name, total in value._asdict().items()}
        case frozenset():
            return sorted(str(int(item)) for item in value)
        case tuple() | list():
            return [plain(item) for item in value]
        case torch.Tensor():
            return [f"{number:g}" for number in value.flatten().tolist()]
        case torch.dtype():
            return str(value).removeprefix("torch.")
        case ErrorCode():
            return value.name
    if type(value) in (*MESSAGES.values(), BilledStep, StepHeader, Receipt, Hold, Line, HistoryRequest):
        return {name: plain(item) for name, item in vars(value).items()}
    return str(value)


@pytest.mark.parametrize(
    ("version", "case"),
    [(version, case) for version in VERSIONS for case in VECTORS[version]["frames"]],
    ids=lambda value: value if isinstance(value, int) else value["name"],
)
def test_a_recorded_frame_is_still_read_and_written(version: int, case: dict[str, Any]) -> None:
    [(session, kind, payload)] = Decoder().feed(bytes.fromhex(case["frame"]))
    assert (str(session), kind.name) == (case["session"], case["kind"])
    if kind not in MESSAGES:
        assert (payload, case["fields"]) == (b"", None)
        return
    message = unpack(MESSAGES[kind], payload, version)
    newer = {name: plain(value) for name, value in NEWER[version].items() if name in vars(message)}
    assert plain(message) == case["fields"] | newer
    assert list(encode(session, kind, pack(message, version))) == [bytes.fromhex(case["frame"])]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_message_is_recorded(version: int) -> None:
    assert VECTORS[version]["version"] == version
    kinds = Kind if version >= 3 else OLD_KINDS
    assert {case["kind"] for case in VECTORS[version]["frames"]} == {kind.name for kind in kinds}
