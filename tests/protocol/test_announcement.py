"""An announcement is believed whole or not at all: one encoding, one signer, every field in its range."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.address import Address
from nectar_protocol.announcement import (
    MAGIC,
    MAX_BLOCKS,
    MAX_LIFE_MS,
    MAX_SIZE,
    ROLE,
    Announcement,
    NodeState,
    Profile,
    addresses_that_fit,
)
from nectar_protocol.errors import IdentityError, MalformedError, ProtocolError, SignatureError
from nectar_protocol.identity import SIGNATURE_SIZE, Identity, PublicKey
from nectar_protocol.manifest import ModelID

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "announcement.json").read_text())

NODE = Identity.from_seed(bytes.fromhex(VECTORS["seed"]))
PLAIN = Announcement.unpack(bytes.fromhex(VECTORS["valid"][0]["packed"]))
BODY = PLAIN.body()

V4 = Address.parse("/ip4/192.0.2.1/tcp/31330")
V6 = Address.parse("/ip6/2001:db8::1/tcp/31330")
V6_RELAYED = replace(V6, relay=NODE.public)

valid = pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])


def of(case: dict[str, Any]) -> Announcement:
    return Announcement(
        node=PublicKey(bytes.fromhex(case["node"])),
        model=ModelID(bytes.fromhex(case["model"])),
        issued_ms=int(case["issued_ms"]),
        expires_ms=int(case["expires_ms"]),
        start=case["start"],
        stop=case["stop"],
        profile=Profile(case["profile"]),
        state=NodeState(case["state"]),
        decode_us=case["decode_us"],
        prefill_us=case["prefill_us"],
        addresses=tuple(Address.parse(text) for text in case["addresses"]),
    )


def sign(body: bytes) -> bytes:
    """Bytes signed by their own node, whatever they say."""
    return body + NODE.sign(ROLE, body)


def read_or_refuse(data: bytes) -> None:
    """`data` is the only encoding of an announcement, or a ProtocolError; anything else fails the test."""
    try:
        announcement = Announcement.unpack(data)
    except ProtocolError:
        return
    assert announcement.pack() == data


@st.composite
def announcements(draw: st.DrawFn) -> Announcement:
    issued_ms = draw(st.integers(0, 2**63))
    start = draw(st.integers(0, MAX_BLOCKS - 1))
    ip = st.ip_addresses(v=4)
    key = st.binary(min_size=32, max_size=32).map(PublicKey)
    return Announcement(
        node=NODE.public,
        model=ModelID(draw(st.binary(min_size=32, max_size=32))),
        issued_ms=issued_ms,
        expires_ms=issued_ms + draw(st.integers(1, MAX_LIFE_MS)),
        start=start,
        stop=draw(st.integers(start + 1, MAX_BLOCKS)),
        profile=draw(st.sampled_from(Profile)),
        state=draw(st.sampled_from(NodeState)),
        decode_us=draw(st.integers(0, 2**32 - 1)),
        prefill_us=draw(st.integers(0, 2**32 - 1)),
        addresses=tuple(draw(st.lists(st.builds(Address, ip, st.integers(1, 65535), st.none() | key), max_size=3))),
    )


# Vectors


@valid
def test_fields_give_the_body_the_signature_and_the_packed_bytes(case: dict[str, Any]) -> None:
    signed = of(case).signed(NODE)
    assert signed.body().hex() == case["body"]
    assert signed.signature.hex() == case["signature"]
    assert signed.pack().hex() == case["packed"] == case["body"] + case["signature"]


@valid
def test_the_packed_bytes_give_the_fields(case: dict[str, Any]) -> None:
    unpacked = Announcement.unpack(bytes.fromhex(case["packed"]))
    assert unpacked == replace(of(case), signature=bytes.fromhex(case["signature"]))
    assert isinstance(unpacked.profile, Profile)
    assert isinstance(unpacked.state, NodeState)


@valid
def test_the_body_is_the_struct_of_the_document(case: dict[str, Any]) -> None:
    a = of(case)
    assert a.body()[:102] == struct.pack(
        ">8s32s32sQQHHBBII",
        b"NECANN01", a.node, a.model, a.issued_ms, a.expires_ms, a.start, a.stop, a.profile, a.state, a.decode_us,
        a.prefill_us,
    )  # fmt: skip
    assert a.body()[102:] == bytes([len(a.addresses)]) + b"".join(address.pack() for address in a.addresses)


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_announcement_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Announcement.unpack(bytes.fromhex(case["packed"]))


# Properties


@given(announcements())
def test_unpack_undoes_pack(announcement: Announcement) -> None:
    signed = announcement.signed(NODE)
    assert Announcement.unpack(signed.pack()) == signed


@pytest.mark.parametrize("offset", range(len(PLAIN.pack())))
def test_an_announcement_with_one_byte_wrong_is_refused(offset: int) -> None:
    packed = bytearray(PLAIN.pack())
    for mask in (0x01, 0x80, 0xFF):
        packed[offset] ^= mask
        with pytest.raises(MalformedError if offset < len(MAGIC) else SignatureError):
            Announcement.unpack(bytes(packed))
        packed[offset] ^= mask


@given(announcements(), st.data())
def test_any_announcement_with_one_byte_wrong_is_refused(announcement: Announcement, data: st.DataObject) -> None:
    packed = bytearray(announcement.signed(NODE).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        Announcement.unpack(bytes(packed))


@given(st.binary(max_size=MAX_SIZE + 20) | st.binary(max_size=MAX_SIZE).map(lambda data: MAGIC + data))
def test_any_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    read_or_refuse(data)


@given(st.binary(max_size=MAX_SIZE - SIGNATURE_SIZE - 40))
def test_any_body_that_its_node_signed_has_one_encoding_or_raises_a_protocol_error(rest: bytes) -> None:
    read_or_refuse(sign(BODY[:40] + rest))


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(40, len(BODY) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_mutated_body_that_its_node_signed_has_one_encoding_or_raises_a_protocol_error(
    changes: list[tuple[int, int]],
) -> None:
    body = bytearray(BODY)
    for offset, value in changes:
        body[offset] = value
    read_or_refuse(sign(bytes(body)))


@given(st.integers(0, len(BODY) - 1), st.binary(min_size=1, max_size=20))
def test_a_body_cut_or_extended_by_its_own_node_is_refused(size: int, tail: bytes) -> None:
    for body in (BODY[:size], BODY + tail):
        with pytest.raises(ProtocolError):
            Announcement.unpack(sign(body))


# Bounds


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 4), (-1, 1), (0, MAX_BLOCKS + 1), (MAX_BLOCKS, MAX_BLOCKS)])
def test_what_is_not_a_span_of_blocks_is_refused(start: int, stop: int) -> None:
    with pytest.raises(MalformedError, match="span of blocks"):
        replace(PLAIN, start=start, stop=stop)


@pytest.mark.parametrize("life_ms", [-1, 0, MAX_LIFE_MS + 1])
def test_a_life_of_no_time_or_over_two_minutes_is_refused(life_ms: int) -> None:
    with pytest.raises(MalformedError, match="lives 1 to 120000 ms"):
        replace(PLAIN, expires_ms=PLAIN.issued_ms + life_ms)


@pytest.mark.parametrize("value", [-1, 2**32])
def test_a_speed_that_does_not_fit_is_never_signed(value: int) -> None:
    with pytest.raises(MalformedError, match="decode_us"):
        replace(PLAIN, decode_us=value).signed(NODE)
    with pytest.raises(MalformedError, match="prefill_us"):
        replace(PLAIN, prefill_us=value).signed(NODE)


def test_300_bytes_are_signed_and_more_are_not() -> None:
    assert len(replace(PLAIN, addresses=(V6,) * 7).signed(NODE).pack()) == MAX_SIZE
    with pytest.raises(MalformedError, match="announce fewer addresses"):
        replace(PLAIN, addresses=(V6,) * 8).signed(NODE)


@given(st.lists(st.sampled_from([V4, V6, V6_RELAYED]), max_size=10).map(tuple))
def test_the_addresses_that_fit_are_the_longest_beginning_that_can_be_signed(some: tuple[Address, ...]) -> None:
    fitting = addresses_that_fit(some)
    assert fitting == some[: len(fitting)]
    replace(PLAIN, addresses=fitting).signed(NODE)
    if fitting != some:
        with pytest.raises(MalformedError):
            replace(PLAIN, addresses=some[: len(fitting) + 1]).signed(NODE)


def test_over_300_bytes_are_refused_even_when_signed() -> None:
    with pytest.raises(MalformedError, match="an announcement of 319 bytes"):
        Announcement.unpack(sign(replace(PLAIN, addresses=(V6,) * 8).body()))


def test_an_announcement_without_its_signature_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Announcement.unpack(replace(PLAIN, signature=b"").pack())


def test_only_its_own_node_can_sign_it() -> None:
    with pytest.raises(IdentityError, match="another node"):
        PLAIN.signed(Identity.from_seed(bytes(32)))


def test_signing_changes_nothing_but_the_signature() -> None:
    unsigned = replace(PLAIN, signature=b"")
    assert unsigned.signed(NODE) == PLAIN
    assert unsigned.signature == b""


def test_a_signature_over_changed_fields_is_not_carried_along() -> None:
    with pytest.raises(SignatureError):
        Announcement.unpack(replace(PLAIN, stop=PLAIN.stop + 1).pack())
