"""An address reads back the same from its text and from its bytes, and each byte string is one address."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.address import (
    MAX_ADDRESSES,
    Address,
    IPAddress,
    pack_addresses,
    read_addresses,
    split_multiaddr,
)
from nectar_protocol.codec import Reader
from nectar_protocol.errors import MalformedError, ProtocolError
from nectar_protocol.identity import PublicKey, peer_id

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "address.json").read_text())


def is_mapped(ip: IPAddress) -> bool:
    """IPv4 inside IPv6, which is refused."""
    return ip.version == 6 and ip.ipv4_mapped is not None


public_keys = st.binary(min_size=32, max_size=32).map(PublicKey)
ips = st.ip_addresses().filter(lambda ip: not is_mapped(ip))
addresses = st.builds(Address, ips, st.integers(1, 65535), st.none() | public_keys)

valid = pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["text"])


def read_one(data: bytes) -> Address:
    reader = Reader(data)
    address = Address.read(reader)
    reader.end()
    return address


def read_all(data: bytes) -> tuple[Address, ...]:
    reader = Reader(data)
    found = read_addresses(reader)
    reader.end()
    return found


# Vectors


@valid
def test_a_text_gives_the_bytes_and_the_bytes_give_the_text(case: dict[str, Any]) -> None:
    assert Address.parse(case["text"]).pack().hex() == case["binary"]
    assert str(read_one(bytes.fromhex(case["binary"]))) == case["text"]


@pytest.mark.parametrize("case", VECTORS["accepted_texts"], ids=lambda case: case["text"])
def test_another_spelling_of_an_ipv6_address_is_read_and_written_canonically(case: dict[str, Any]) -> None:
    assert str(Address.parse(case["text"])) == case["canonical"]


@pytest.mark.parametrize("case", VECTORS["valid_lists"], ids=lambda case: f"{len(case['texts'])} addresses")
def test_a_list_gives_the_bytes_and_the_bytes_give_the_list(case: dict[str, Any]) -> None:
    found = tuple(Address.parse(text) for text in case["texts"])
    assert pack_addresses(found).hex() == case["binary"]
    assert read_all(bytes.fromhex(case["binary"])) == found


@pytest.mark.parametrize("case", VECTORS["invalid_texts"], ids=lambda case: case["name"])
def test_an_invalid_text_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Address.parse(case["text"])


@pytest.mark.parametrize("case", VECTORS["invalid_binaries"], ids=lambda case: case["name"])
def test_invalid_bytes_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        read_one(bytes.fromhex(case["binary"]))


@pytest.mark.parametrize("case", VECTORS["invalid_lists"], ids=lambda case: case["name"])
def test_an_invalid_list_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        read_all(bytes.fromhex(case["binary"]))


# Properties


@given(addresses)
def test_parsing_the_text_of_an_address_gives_the_address(address: Address) -> None:
    assert Address.parse(str(address)) == address


@given(addresses)
def test_reading_the_bytes_of_an_address_gives_the_address(address: Address) -> None:
    assert read_one(address.pack()) == address


@given(st.lists(addresses, max_size=MAX_ADDRESSES).map(tuple))
def test_reading_the_bytes_of_a_list_gives_the_list(some: tuple[Address, ...]) -> None:
    assert read_all(pack_addresses(some)) == some


@given(addresses, public_keys)
def test_a_peer_named_after_the_address_is_split_off(address: Address, target: PublicKey) -> None:
    assert split_multiaddr(f"{address}/p2p/{peer_id(target)}") == (address, target)
    assert split_multiaddr(str(address)) == (address, None)


@given(st.binary(max_size=60))
def test_any_bytes_are_the_one_encoding_of_an_address_or_a_protocol_error(data: bytes) -> None:
    try:
        address = read_one(data)
    except ProtocolError:
        return
    assert address.pack() == data


@given(st.lists(addresses, max_size=3).map(tuple), st.data())
def test_a_mutated_list_has_one_encoding_or_raises_a_protocol_error(
    some: tuple[Address, ...], data: st.DataObject
) -> None:
    packed = bytearray(pack_addresses(some))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_all(bytes(packed))
    except ProtocolError:
        return
    assert pack_addresses(found) == packed


@given(st.text() | st.lists(st.sampled_from(["", "ip4", "ip6", "tcp", "p2p", "1", "::", "1.2.3.4"])).map("/".join))
def test_any_text_is_an_address_or_a_protocol_error(text: str) -> None:
    try:
        address, _ = split_multiaddr(text)
    except ProtocolError:
        return
    assert Address.parse(str(address)) == address


@given(addresses, st.data())
def test_a_mutated_text_is_an_address_or_a_protocol_error(address: Address, data: st.DataObject) -> None:
    text = str(address)
    at = data.draw(st.integers(0, len(text)))
    mutated = text[:at] + data.draw(st.characters() | st.sampled_from("/%0:.")) + text[at + 1 :]
    try:
        found, _ = split_multiaddr(mutated)
    except ProtocolError:
        return
    assert read_one(found.pack()) == found


# Bounds


def test_nine_addresses_are_neither_written_nor_read() -> None:
    address = Address.parse("/ip4/192.0.2.1/tcp/31330")
    with pytest.raises(MalformedError, match="9 addresses"):
        pack_addresses((address,) * (MAX_ADDRESSES + 1))
    with pytest.raises(MalformedError, match="9 addresses"):
        read_all(bytes([MAX_ADDRESSES + 1]) + address.pack() * (MAX_ADDRESSES + 1))


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_nobody_can_dial_is_refused(port: int) -> None:
    with pytest.raises(MalformedError, match="port"):
        Address(ip_address("192.0.2.1"), port)


@pytest.mark.parametrize("ip", ["::ffff:192.0.2.1", "fe80::1%eth0"])
def test_an_ipv6_that_is_ipv4_or_has_a_zone_is_refused(ip: str) -> None:
    with pytest.raises(MalformedError, match="IPv4 written as IPv6"):
        Address(ip_address(ip), 31330)


def test_a_text_that_is_no_address_is_answered_with_the_form_that_is() -> None:
    with pytest.raises(MalformedError, match="write /ip4/HOST/tcp/PORT/p2p/PEER"):
        split_multiaddr("example.org:31330")
