"""The definitions of RFC 6962 section 2.1, word for word: what the trees and proofs of the package are held against."""

import hashlib


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def k(n: int) -> int:
    """The largest power of two smaller than n."""
    power = 1
    while power * 2 < n:
        power *= 2
    return power


def mth(d: list[bytes]) -> bytes:
    """The Merkle tree hash of a list of entries."""
    match len(d):
        case 0:
            return sha256(b"")
        case 1:
            return sha256(b"\x00" + d[0])
        case n:
            return sha256(b"\x01" + mth(d[: k(n)]) + mth(d[k(n) :]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    """The audit path of entry m."""
    n = len(d)
    if n == 1:
        return []
    if m < k(n):
        return [*path(m, d[: k(n)]), mth(d[k(n) :])]
    return [*path(m - k(n), d[k(n) :]), mth(d[: k(n)])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    """The consistency proof from the first m entries to all of them."""
    return subproof(m, d, True)


def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    if m <= k(n):
        return [*subproof(m, d[: k(n)], b), mth(d[k(n) :])]
    return [*subproof(m - k(n), d[k(n) :], False), mth(d[: k(n)])]
