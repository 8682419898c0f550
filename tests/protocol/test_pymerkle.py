"""An implementation of RFC 6962 that is not ours, pymerkle, has the same roots and proofs, and takes ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.errors import ProofError
from nectar_protocol.merkle import EMPTY_ROOT, Hash, leaf_hash, tree_root
from nectar_protocol.proofs import (
    leaves_reader,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)
from pymerkle import InclusionProof, InmemoryTree, InvalidProof
from pymerkle import verify_consistency as pymerkle_consistency
from pymerkle import verify_inclusion as pymerkle_inclusion

entries = st.lists(st.binary(max_size=40), min_size=1, max_size=80)


def tree_of(some: list[bytes]) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for entry in some:
        tree.append_entry(entry)
    return tree


@given(entries)
def test_every_prefix_has_the_same_root(some: list[bytes]) -> None:
    tree, leaves = tree_of(some), [leaf_hash(entry) for entry in some]
    assert tree.get_root(0) == EMPTY_ROOT
    for size in range(1, len(some) + 1):
        assert tree.get_root(size) == tree_root(leaves[:size])
    assert [tree.get_leaf(number) for number in range(1, len(some) + 1)] == leaves


@given(entries, st.data())
def test_inclusion_proofs_are_the_same_and_each_takes_the_others(some: list[bytes], data: st.DataObject) -> None:
    tree, leaves = tree_of(some), [leaf_hash(entry) for entry in some]
    size = data.draw(st.integers(1, len(some)))
    index = data.draw(st.integers(0, size - 1))
    root, theirs = tree_root(leaves[:size]), tree.prove_inclusion(index + 1, size)
    ours = prove_inclusion(leaves_reader(leaves), index, size)
    # Theirs begins with the leaf, and counts from one.
    assert theirs.path == [leaves[index], *ours]
    verify_inclusion(leaves[index], index, size, [Hash(node) for node in theirs.path[1:]], root)
    rebuilt = InclusionProof("sha256", True, size, index + 1, theirs.rule, [leaves[index], *ours])
    pymerkle_inclusion(leaves[index], root, rebuilt, index=index + 1, size=size)


@given(entries, st.data())
def test_both_find_that_a_tree_grew_or_that_it_forked(some: list[bytes], data: st.DataObject) -> None:
    tree, leaves = tree_of(some), [leaf_hash(entry) for entry in some]
    new = data.draw(st.integers(1, len(some)))
    old = data.draw(st.integers(1, new))
    theirs, ours = tree.prove_consistency(old, new), prove_consistency(leaves_reader(leaves), old, new)
    roots = Hash(tree.get_root(old)), Hash(tree.get_root(new))
    verify_consistency(old, new, ours, *roots)
    pymerkle_consistency(tree_root(leaves[:old]), tree_root(leaves[:new]), theirs, prior_size=old, later_size=new)
    forked = leaves.copy()
    forked[data.draw(st.integers(0, old - 1))] = leaf_hash(b"another entry")
    fork = tree_root(forked[:old])
    if fork != roots[0]:
        with pytest.raises(ProofError):
            verify_consistency(old, new, ours, fork, roots[1])
        with pytest.raises(InvalidProof):
            pymerkle_consistency(fork, roots[1], theirs, prior_size=old, later_size=new)
