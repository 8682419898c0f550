"""Proofs that an entry is in a log, and that a log only grew: made from hashes, checked against roots.

Inclusion and consistency proofs are those of RFC 6962 sections 2.1.1 and 2.1.2: hashes from the leaf's side up. They
are checked by RFC 9162 sections 2.1.3.2 and 2.1.4.2, which share nothing with the making but `node_hash`.

Verification returns nothing or raises. A proof is worth what its roots and sizes are: take them from a checkpoint
whose signatures were verified.
"""

from collections.abc import Callable, Sequence

from nectar_protocol.errors import MalformedError, ProofError
from nectar_protocol.merkle import Hash, node_hash, root_of_peaks, tree_hash, tree_size

# (level, index) -> the root over the leaves [index << level, (index + 1) << level)
HashReader = Callable[[int, int], Hash]

MAX_HASHES = 64


def leaves_reader(leaves: Sequence[Hash]) -> HashReader:
    """Read hashes of a tree whose leaf hashes are all at hand."""

    def read(level: int, index: int) -> Hash:
        row = leaves[index << level : (index + 1) << level]
        if len(row) != 1 << level:
            raise MalformedError(f"subtree {index} of level {level} is not whole in a tree of {len(leaves)} leaves")
        return perfect_root(row)

    return read


def perfect_root(row: Sequence[Hash]) -> Hash:
    """The root over a power of two of neighbouring hashes."""
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def subtree_root(read: HashReader, start: int, stop: int) -> Hash:
    """The root over the leaves [start, stop) of a subtree of RFC 6962; of the whole tree for [0, size)."""
    peaks = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        peaks.append(read(level, start >> level))
        start += 1 << level
    return root_of_peaks(peaks)


def prove_inclusion(read: HashReader, index: int, size: int) -> list[Hash]:
    """That leaf `index` is in the tree of `size` leaves. Raises MalformedError if there is no such leaf."""
    _check_index(index, size)
    proof, start, stop = [], 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            proof.append(subtree_root(read, middle, stop))
            stop = middle
        else:
            proof.append(subtree_root(read, start, middle))
            start = middle
    return proof[::-1]


def prove_consistency(read: HashReader, old_size: int, new_size: int) -> list[Hash]:
    """That the tree of `new_size` leaves begins with that of `old_size`. Raises MalformedError for sizes out of order,
    and for the empty tree, with which every tree begins.
    """
    _check_sizes(old_size, new_size)
    proof, start, stop = [], 0, new_size
    while old_size != stop:
        middle = start + _split(stop - start)
        if old_size <= middle:
            proof.append(subtree_root(read, middle, stop))
            stop = middle
        else:
            proof.append(subtree_root(read, start, middle))
            start = middle
    if 0 < start < new_size:
        proof.append(subtree_root(read, start, stop))
    return proof[::-1]


def verify_inclusion(leaf: Hash, index: int, size: int, proof: Sequence[Hash], root: Hash) -> None:
    """Return if `leaf` is at `index` in the tree of this size and root. Raises ProofError, or MalformedError for an
    index or a hash that no tree has.
    """
    _check_index(index, size)
    _check_hashes(proof, leaf, root)
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError(f"a proof of {len(proof)} hashes is too long for entry {index} of {size}")
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            node, last = _skip_only_children(node, last)
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofError(f"a proof of {len(proof)} hashes is too short for entry {index} of {size}")
    if result != root:
        raise ProofError(f"this is not entry {index} of the tree with {size} entries and this root")


def verify_consistency(old_size: int, new_size: int, proof: Sequence[Hash], old_root: Hash, new_root: Hash) -> None:
    """Return if the new tree begins with the old one. Raises ProofError, or MalformedError for sizes out of order, an
    empty old tree, or a hash that no tree has.
    """
    _check_sizes(old_size, new_size)
    _check_hashes(proof, old_root, new_root)
    if old_size == new_size:
        if proof or old_root != new_root:
            raise ProofError(f"two trees of {new_size} entries are the same tree with an empty proof, or a fork")
        return
    # A perfect old tree is a node of the new one, and the proof leaves it out.
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not proof:
        raise ProofError(f"an empty proof from {old_size} to {new_size} entries")
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError(f"a proof of {len(proof)} hashes is too long from {old_size} to {new_size} entries")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            node, last = _skip_only_children(node, last)
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofError(f"a proof of {len(proof)} hashes is too short from {old_size} to {new_size} entries")
    if old != old_root or new != new_root:
        raise ProofError(f"the tree of {new_size} entries does not begin with that of {old_size}: a fork")


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _skip_only_children(node: int, last: int) -> tuple[int, int]:
    """Up past the levels at which the node has no sibling on the right."""
    while not node & 1 and node:
        node, last = node >> 1, last >> 1
    return node, last


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < tree_size(size):
        raise MalformedError(f"there is no entry {index} in a tree of {size}")


def _check_sizes(old_size: int, new_size: int) -> None:
    if not 0 < old_size <= tree_size(new_size):
        raise MalformedError(f"nothing can be proved from {old_size} to {new_size} entries")


def _check_hashes(proof: Sequence[Hash], *others: Hash) -> None:
    if len(proof) > MAX_HASHES:
        raise MalformedError(f"a proof of {len(proof)} hashes; at most {MAX_HASHES} are read")
    for node in (*proof, *others):
        tree_hash(node)
