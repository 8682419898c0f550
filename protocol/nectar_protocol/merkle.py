"""The Merkle tree of a log: RFC 6962 section 2.1 over SHA-256.

    leaf = SHA-256(00 | entry)      node = SHA-256(01 | left | right)      empty tree = SHA-256("")

A tree of n leaves is split at the largest power of two below n, so it is a row of perfect subtrees from the widest to
the narrowest, its **peaks**. They are all that a log needs to grow and to know its root.

A root does not bind the number of leaves: sign, store and compare both together, always.
"""

import hashlib
from collections.abc import Sequence
from typing import NewType

from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError

Hash = NewType("Hash", bytes)

HASH_SIZE = 32
MAX_LEAVES = 2**63 - 1
EMPTY_ROOT = Hash(hashlib.sha256(b"").digest())


def leaf_hash(entry: bytes) -> Hash:
    return Hash(hashlib.sha256(b"\0" + entry).digest())


def node_hash(left: Hash, right: Hash) -> Hash:
    return Hash(hashlib.sha256(b"\1" + left + right).digest())


def tree_hash(data: bytes) -> Hash:
    """`data` as a hash from outside. Raises MalformedError unless it is 32 bytes."""
    if len(data) != HASH_SIZE:
        raise MalformedError(f"a hash of a tree is {HASH_SIZE} bytes, not {len(data)}")
    return Hash(data)


def tree_size(leaves: int) -> int:
    """`leaves` as the size of a tree from outside. Raises MalformedError outside of 0 to 2^63 - 1."""
    if not 0 <= leaves <= MAX_LEAVES:
        raise MalformedError(f"a tree has 0 to 2^63 - 1 leaves, not {leaves}")
    return leaves


def split_hashes(data: bytes) -> list[Hash]:
    """The hashes that lie one after the other in `data`. Raises MalformedError for a part of one."""
    if len(data) % HASH_SIZE:
        raise MalformedError(f"{len(data)} bytes are no whole number of hashes of {HASH_SIZE}")
    return [Hash(data[i : i + HASH_SIZE]) for i in range(0, len(data), HASH_SIZE)]


def root_of_peaks(peaks: Sequence[Hash]) -> Hash:
    """The root of a tree with these peaks, left to right."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def tree_root(leaves: Sequence[Hash]) -> Hash:
    """The root over leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


class Frontier:
    """The right edge of a growing tree: its size and its peaks, at most 63. Packed: size u64 | peaks."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[Hash] = []

    def append(self, leaf: Hash) -> list[Hash]:
        """Add a leaf. The roots of the perfect subtrees that it completes, by level: of 1 leaf (itself), 2, 4, …"""
        completed, width = [leaf], self.size
        while width & 1:
            completed.append(node_hash(self.peaks.pop(), completed[-1]))
            width >>= 1
        self.peaks.append(completed[-1])
        self.size += 1
        return completed

    def root(self) -> Hash:
        return root_of_peaks(self.peaks)

    def pack(self) -> bytes:
        return uint(self.size, 8, "size") + b"".join(self.peaks)

    @classmethod
    def unpack(cls, data: bytes) -> "Frontier":
        """Raises MalformedError for anything that `pack` does not make."""
        reader, frontier = Reader(data), cls()
        frontier.size = tree_size(reader.uint(8))
        frontier.peaks = split_hashes(reader.take(HASH_SIZE * frontier.size.bit_count()))
        reader.end()
        return frontier
