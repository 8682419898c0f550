"""A model's identity: the same files give the same ID in any order, and every manifest has one encoding."""

import hashlib
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.errors import MalformedError, ProtocolError
from nectar_protocol.manifest import MAX_FILES, MAX_NAME, MODEL_ROLE, FileEntry, Manifest

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "manifest.json").read_text())

DIGEST = hashlib.sha256(b"").digest()

parts = st.text("abc.-_é蜜🐝～", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
names = st.lists(parts, min_size=1, max_size=3).map("/".join)
digests = st.binary(min_size=32, max_size=32)
files = st.lists(
    st.builds(FileEntry, names, st.integers(0, 2**63 - 1), digests),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: entry.name,
)

valid = pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])


def entries(case: dict[str, Any]) -> list[FileEntry]:
    return [FileEntry(file["name"], int(file["size"]), bytes.fromhex(file["sha256"])) for file in case["files"]]


def by_the_document(entries: list[FileEntry]) -> bytes:
    """The packed form, written a second time from docs and without the package's codec."""
    packed = struct.pack(">I", len(entries))
    for entry in sorted(entries, key=lambda entry: entry.name.encode()):
        name = entry.name.encode()
        packed += struct.pack(f">H{len(name)}sQ32s", len(name), name, entry.size, entry.sha256)
    return packed


def read_or_refuse(data: bytes) -> None:
    """`data` is the only encoding of a manifest, or a ProtocolError; anything else fails the test."""
    try:
        manifest = Manifest.unpack(data)
    except ProtocolError:
        return
    assert manifest.pack() == data


# Vectors


@valid
def test_files_give_the_packed_manifest_and_the_model_id(case: dict[str, Any]) -> None:
    manifest = Manifest.of(entries(case))
    assert manifest.pack().hex() == case["packed"]
    assert manifest.model_id.hex() == case["model_id"]
    assert manifest.pack() == by_the_document(entries(case))


@valid
def test_a_packed_manifest_gives_its_files(case: dict[str, Any]) -> None:
    manifest = Manifest.unpack(bytes.fromhex(case["packed"]))
    assert sorted(manifest.files) == sorted(entries(case))


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_manifest_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Manifest.unpack(bytes.fromhex(case["packed"]))


# Properties


@given(files)
def test_unpack_undoes_pack(entries: list[FileEntry]) -> None:
    manifest = Manifest.of(entries)
    assert Manifest.unpack(manifest.pack()) == manifest
    assert manifest.pack() == by_the_document(entries)


@given(files, st.randoms())
def test_the_order_of_the_files_does_not_change_the_model(entries: list[FileEntry], random: Random) -> None:
    shuffled = random.sample(entries, len(entries))
    assert Manifest.of(shuffled).model_id == Manifest.of(entries).model_id


@given(files, files)
def test_other_files_are_another_model(some: list[FileEntry], others: list[FileEntry]) -> None:
    assert (Manifest.of(some) == Manifest.of(others)) == (Manifest.of(some).model_id == Manifest.of(others).model_id)


def test_the_model_id_is_the_hash_of_role_and_manifest() -> None:
    manifest = Manifest.of([FileEntry("config.json", 0, DIGEST)])
    assert manifest.model_id == hashlib.sha256(b"nectar/model/v1\n" + manifest.pack()).digest()
    assert MODEL_ROLE == b"nectar/model/v1\n"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_protocol_error(data: bytes) -> None:
    read_or_refuse(data)


@given(files, st.data())
def test_a_mutated_manifest_has_one_encoding_or_raises_a_protocol_error(
    entries: list[FileEntry], data: st.DataObject
) -> None:
    packed = bytearray(Manifest.of(entries).pack())
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(packed))


@given(files, st.data())
def test_a_manifest_that_is_cut_or_extended_is_refused(entries: list[FileEntry], data: st.DataObject) -> None:
    packed = Manifest.of(entries).pack()
    with pytest.raises(MalformedError):
        Manifest.unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(MalformedError):
        Manifest.unpack(packed + data.draw(st.binary(min_size=1, max_size=50)))


# Bounds


@pytest.mark.parametrize(
    "name", ["", "/", "/etc/passwd", "a/", "a//b", ".", "..", "a/../b", "./a", "../a", "é" * 257, "a" * (MAX_NAME + 1)]
)
def test_a_name_that_leaves_the_folder_or_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="not a file name"):
        FileEntry(name, 0, DIGEST)


@pytest.mark.parametrize("name", ["a", "a/b", "...", ".gitattributes", "a..b", "a" * MAX_NAME, "é" * 256])
def test_a_name_inside_the_folder_is_accepted(name: str) -> None:
    assert Manifest.unpack(Manifest.of([FileEntry(name, 0, DIGEST)]).pack()).files[0].name == name


@pytest.mark.parametrize("size", [0, 20, 31, 33])
def test_a_digest_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(MalformedError, match="SHA-256"):
        FileEntry("a", 0, bytes(size))


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(MalformedError, match="size"):
        FileEntry("a", size, DIGEST)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x7f", "a\\b", "C:\\a", "\ud800", "a\udcffb"])
def test_a_name_with_a_character_that_systems_read_differently_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="has a character"):
        FileEntry(name, 0, DIGEST)


def test_a_manifest_lists_1_to_10000_files() -> None:
    many = [FileEntry(f"{i:05}", 0, DIGEST) for i in range(MAX_FILES + 1)]
    assert len(Manifest.unpack(Manifest.of(many[:-1]).pack()).files) == MAX_FILES
    for entries in ([], many):
        with pytest.raises(MalformedError, match="1 to 10000 files"):
            Manifest.of(entries)


def test_a_count_beyond_the_bound_is_refused_before_anything_is_read() -> None:
    with pytest.raises(MalformedError, match="at most 10000"):
        Manifest.unpack(b"\xff\xff\xff\xff")


def test_files_that_are_not_sorted_or_come_twice_are_refused() -> None:
    a, b = FileEntry("a", 0, DIGEST), FileEntry("b", 0, DIGEST)
    for entries in ((b, a), (a, a)):
        with pytest.raises(MalformedError, match="sorted by name"):
            Manifest(entries)
    with pytest.raises(MalformedError, match="sorted by name"):
        Manifest.of([a, FileEntry("a", 1, DIGEST)])


def test_a_file_is_found_by_its_name() -> None:
    a = FileEntry("a", 0, DIGEST)
    assert Manifest.of([a]).file("a") == a
    assert Manifest.of([a]).file("b") is None
