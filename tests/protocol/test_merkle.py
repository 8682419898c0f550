"""Trees are those of RFC 6962, and a log can put down its frontier and go on later."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.errors import MalformedError
from nectar_protocol.merkle import (
    EMPTY_ROOT,
    MAX_LEAVES,
    Frontier,
    leaf_hash,
    node_hash,
    root_of_peaks,
    split_hashes,
    tree_hash,
    tree_root,
    tree_size,
)
from nectar_protocol.proofs import leaves_reader, subtree_root

from tests.protocol import rfc6962

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())

# Roots over the first leaves of Certificate Transparency's reference tree, as other implementations write them.
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

entries = st.lists(st.binary(max_size=8), max_size=70)


def frontier_of(some: list[bytes]) -> Frontier:
    frontier = Frontier()
    for entry in some:
        frontier.append(leaf_hash(entry))
    return frontier


# Vectors


def test_the_vectors_grow_into_the_reference_trees() -> None:
    assert [tree["root"] for tree in VECTORS["trees"]] == CT_ROOTS
    data = [bytes.fromhex(entry) for entry in VECTORS["entries"]]
    for size, tree in enumerate(VECTORS["trees"]):
        frontier = frontier_of(data[:size])
        assert (str(frontier.size), frontier.root().hex()) == (tree["size"], tree["root"])
        assert frontier.pack().hex() == tree["frontier"]


def test_the_vectors_entries_hash_to_their_leaves() -> None:
    assert [leaf_hash(bytes.fromhex(entry)).hex() for entry in VECTORS["entries"]] == VECTORS["leaves"]


@pytest.mark.parametrize("case", VECTORS["invalid_frontiers"], ids=lambda case: case["name"])
def test_an_invalid_frontier_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Frontier.unpack(bytes.fromhex(case["frontier"]))


# Properties


@given(entries)
def test_every_way_to_a_root_gives_the_one_of_the_rfc(some: list[bytes]) -> None:
    leaves, root = [leaf_hash(entry) for entry in some], rfc6962.mth(some)
    assert tree_root(leaves) == frontier_of(some).root() == root
    assert subtree_root(leaves_reader(leaves), 0, len(leaves)) == root


@given(entries, entries)
def test_a_frontier_that_was_packed_goes_on_as_before(before: list[bytes], after: list[bytes]) -> None:
    frontier = Frontier.unpack(frontier_of(before).pack())
    for entry in after:
        frontier.append(leaf_hash(entry))
    assert frontier.size == len(before) + len(after)
    assert frontier.root() == rfc6962.mth(before + after)
    assert frontier.pack() == frontier_of(before + after).pack()


@given(entries, st.binary(max_size=8))
def test_append_gives_the_subtrees_that_the_leaf_completes(some: list[bytes], entry: bytes) -> None:
    completed, stop = frontier_of(some).append(leaf_hash(entry)), len(some) + 1
    assert len(completed) == (stop & -stop).bit_length()
    for level, node in enumerate(completed):
        assert node == rfc6962.mth([*some, entry][stop - (1 << level) :])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frontier_or_a_malformed_error(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert Frontier.unpack(data).pack() == data


@given(st.binary(min_size=64, max_size=64))
def test_a_leaf_is_never_a_node(data: bytes) -> None:
    assert leaf_hash(data) != node_hash(tree_hash(data[:32]), tree_hash(data[32:]))


# Bounds


def test_a_frontier_has_a_peak_for_each_bit_of_its_size() -> None:
    largest = MAX_LEAVES.to_bytes(8, "big") + bytes(32 * 63)
    assert len(Frontier.unpack(largest).peaks) == 63
    with pytest.raises(MalformedError, match="2\\^63 - 1 leaves"):
        Frontier.unpack((MAX_LEAVES + 1).to_bytes(8, "big") + bytes(32))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_hash_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(MalformedError, match=f"not {size}"):
        tree_hash(bytes(size))


@pytest.mark.parametrize("leaves", [-1, MAX_LEAVES + 1])
def test_a_size_that_no_tree_has_is_refused(leaves: int) -> None:
    with pytest.raises(MalformedError, match=f"not {leaves}"):
        tree_size(leaves)


def test_a_part_of_a_hash_is_refused() -> None:
    assert split_hashes(bytes(64)) == [bytes(32)] * 2
    with pytest.raises(MalformedError, match="63 bytes"):
        split_hashes(bytes(63))


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert tree_root([]) == root_of_peaks([]) == EMPTY_ROOT == rfc6962.sha256(b"")
