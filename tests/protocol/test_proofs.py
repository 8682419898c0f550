"""Every proof that is made verifies, is the one of RFC 6962, and proves nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.errors import MalformedError, ProofError, ProtocolError
from nectar_protocol.merkle import MAX_LEAVES, Hash, leaf_hash, tree_root
from nectar_protocol.proofs import (
    MAX_HASHES,
    leaves_reader,
    prove_consistency,
    prove_inclusion,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)

from tests.protocol import rfc6962

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())

ENTRIES = [number.to_bytes(2, "big") for number in range(600)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
READ = leaves_reader(LEAVES)
ROOTS = [tree_root(LEAVES[:size]) for size in range(len(LEAVES) + 1)]

sizes = st.integers(1, 40) | st.integers(1, len(LEAVES)) | st.sampled_from([255, 256, 257, 511, 512, 513])
positions = sizes.flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))
growths = sizes.flatmap(lambda size: st.tuples(st.integers(1, size), st.just(size)))


def flip_bit(node: Hash, bit: int) -> Hash:
    return Hash((int.from_bytes(node, "big") ^ (1 << bit)).to_bytes(32, "big"))


def one_bit_changed(hashes: list[Hash], data: st.DataObject) -> list[Hash]:
    i, bit = data.draw(st.integers(0, len(hashes) - 1)), data.draw(st.integers(0, 255))
    return [*hashes[:i], flip_bit(hashes[i], bit), *hashes[i + 1 :]]


def hashes(case: dict[str, Any], name: str) -> list[Hash]:
    return [Hash(bytes.fromhex(node)) for node in case[name]]


def check_inclusion(case: dict[str, Any]) -> None:
    leaf, root = Hash(bytes.fromhex(case["leaf"])), Hash(bytes.fromhex(case["root"]))
    verify_inclusion(leaf, int(case["index"]), int(case["size"]), hashes(case, "proof"), root)


def check_consistency(case: dict[str, Any]) -> None:
    old_root, new_root = Hash(bytes.fromhex(case["old_root"])), Hash(bytes.fromhex(case["new_root"]))
    verify_consistency(int(case["old_size"]), int(case["new_size"]), hashes(case, "proof"), old_root, new_root)


# Vectors


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: f"{case['index']} of {case['size']}")
def test_an_inclusion_vector_is_made_and_verifies(case: dict[str, Any]) -> None:
    check_inclusion(case)
    read = leaves_reader(hashes(VECTORS, "leaves"))
    assert prove_inclusion(read, int(case["index"]), int(case["size"])) == hashes(case, "proof")


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: f"{case['old_size']} to {case['new_size']}")
def test_a_consistency_vector_is_made_and_verifies(case: dict[str, Any]) -> None:
    check_consistency(case)
    read = leaves_reader(hashes(VECTORS, "leaves"))
    assert prove_consistency(read, int(case["old_size"]), int(case["new_size"])) == hashes(case, "proof")


@pytest.mark.parametrize("case", VECTORS["invalid_inclusion"], ids=lambda case: case["name"])
def test_an_invalid_inclusion_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        check_inclusion(case)


@pytest.mark.parametrize("case", VECTORS["invalid_consistency"], ids=lambda case: case["name"])
def test_an_invalid_consistency_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        check_consistency(case)


def test_the_vectors_have_at_least_as_many_cases_as_those_they_follow() -> None:
    kinds = ("inclusion", "consistency", "invalid_inclusion", "invalid_consistency")
    assert sum(len(VECTORS[kind]) for kind in kinds) >= 196


# Properties


@given(positions)
def test_an_inclusion_proof_is_the_path_of_the_rfc_and_verifies(position: tuple[int, int]) -> None:
    index, size = position
    proof = prove_inclusion(READ, index, size)
    assert proof == rfc6962.path(index, ENTRIES[:size])
    assert len(proof) <= (size - 1).bit_length()
    verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@given(growths)
def test_a_consistency_proof_is_the_one_of_the_rfc_and_verifies(growth: tuple[int, int]) -> None:
    old, new = growth
    proof = prove_consistency(READ, old, new)
    assert proof == rfc6962.proof(old, ENTRIES[:new])
    assert len(proof) <= (new - 1).bit_length() + 1
    verify_consistency(old, new, proof, ROOTS[old], ROOTS[new])


@given(positions, st.data())
def test_one_bit_changed_in_an_inclusion_makes_it_fail(position: tuple[int, int], data: st.DataObject) -> None:
    index, size = position
    proof = prove_inclusion(READ, index, size)
    leaf, root, *proof = one_bit_changed([LEAVES[index], ROOTS[size], *proof], data)
    with pytest.raises(ProofError):
        verify_inclusion(leaf, index, size, proof, root)


@given(growths, st.data())
def test_one_bit_changed_in_a_consistency_makes_it_fail(growth: tuple[int, int], data: st.DataObject) -> None:
    old, new = growth
    proof = prove_consistency(READ, old, new)
    old_root, new_root, *proof = one_bit_changed([ROOTS[old], ROOTS[new], *proof], data)
    with pytest.raises(ProofError):
        verify_consistency(old, new, proof, old_root, new_root)


@given(positions, st.data())
def test_an_entry_is_at_no_other_index(position: tuple[int, int], data: st.DataObject) -> None:
    index, size = position
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        with pytest.raises(ProofError):
            verify_inclusion(LEAVES[index], other, size, prove_inclusion(READ, index, size), ROOTS[size])


@given(growths, st.data())
def test_a_proof_with_a_hash_more_or_less_fails(growth: tuple[int, int], data: st.DataObject) -> None:
    old, new = growth
    proof = prove_consistency(READ, old, new)
    place = data.draw(st.integers(0, len(proof)))
    for wrong in ([*proof[:place], LEAVES[0], *proof[place:]], proof[:place] + proof[place + 1 :]):
        if wrong != proof:
            with pytest.raises(ProofError):
                verify_consistency(old, new, wrong, ROOTS[old], ROOTS[new])


@given(growths)
def test_a_log_that_changed_an_old_entry_cannot_prove_that_it_grew(growth: tuple[int, int]) -> None:
    old, new = growth
    forged = [leaf_hash(b"forged"), *LEAVES[1:new]]
    proof = prove_consistency(leaves_reader(forged), old, new)
    with pytest.raises(ProofError):
        verify_consistency(old, new, proof, ROOTS[old], tree_root(forged))


huge = st.integers(-1, 2**64) | st.integers(0, 10)
any_hashes = st.lists(st.sampled_from(LEAVES[:4] + ROOTS[:5] + [Hash(b"")]), max_size=70)


@given(huge, huge, any_hashes, st.sampled_from(LEAVES[:4]), st.sampled_from(ROOTS[:5]))
def test_anything_verifies_or_raises_a_protocol_error(
    a: int, b: int, proof: list[Hash], leaf: Hash, root: Hash
) -> None:
    for verify in (
        lambda: verify_inclusion(leaf, a, b, proof, root),
        lambda: verify_consistency(a, b, proof, leaf, root),
    ):
        try:
            verify()
        except ProtocolError:
            continue


# Bounds


def test_a_root_does_not_bind_the_size() -> None:
    """Why sizes and roots are signed together: this proof of three entries passes for four."""
    proof = prove_inclusion(READ, 0, 3)
    verify_inclusion(LEAVES[0], 0, 3, proof, ROOTS[3])
    verify_inclusion(LEAVES[0], 0, 4, proof, ROOTS[3])


def test_the_largest_tree_is_verified_and_a_larger_one_refused() -> None:
    siblings = [leaf_hash(bytes([number])) for number in range(63)]
    with pytest.raises(ProofError, match="not entry"):
        verify_inclusion(LEAVES[0], 0, MAX_LEAVES, siblings, ROOTS[1])
    with pytest.raises(MalformedError, match="2\\^63"):
        verify_inclusion(LEAVES[0], 0, MAX_LEAVES + 1, siblings, ROOTS[1])


def test_at_most_64_hashes_are_read() -> None:
    with pytest.raises(ProofError, match="64 hashes is too long"):
        verify_inclusion(LEAVES[0], 0, 2, LEAVES[:MAX_HASHES], ROOTS[2])
    with pytest.raises(MalformedError, match="65 hashes"):
        verify_inclusion(LEAVES[0], 0, 2, LEAVES[: MAX_HASHES + 1], ROOTS[2])
    with pytest.raises(MalformedError, match="65 hashes"):
        verify_consistency(1, 2, LEAVES[: MAX_HASHES + 1], ROOTS[1], ROOTS[2])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (5, 4)])
def test_no_entry_no_proof(index: int, size: int) -> None:
    with pytest.raises(MalformedError, match="no entry"):
        prove_inclusion(READ, index, size)
    with pytest.raises(MalformedError, match="no entry"):
        verify_inclusion(LEAVES[0], index, size, [], ROOTS[1])


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 4), (5, 4), (-1, 4)])
def test_nothing_is_proved_from_the_empty_tree_or_backwards(old: int, new: int) -> None:
    with pytest.raises(MalformedError, match="nothing can be proved"):
        prove_consistency(READ, old, new)
    with pytest.raises(MalformedError, match="nothing can be proved"):
        verify_consistency(old, new, [], ROOTS[0], ROOTS[4])


def test_two_trees_of_one_size_with_different_roots_are_a_fork() -> None:
    with pytest.raises(ProofError, match="a fork"):
        verify_consistency(4, 4, [], ROOTS[4], ROOTS[3])


def test_a_subtree_beyond_the_leaves_is_refused() -> None:
    with pytest.raises(MalformedError, match="not whole"):
        subtree_root(leaves_reader(LEAVES[:3]), 0, 4)
