"""Signatures on which Ed25519 libraries disagree. Libsodium's rule is Nectar's: what it refuses, everybody refuses."""

from typing import Any

import edwards

Json = dict[str, Any]

ROLE = b"nectar/announcement/v1\n"


def verification_vectors() -> Json:
    """Signatures on which Ed25519 libraries disagree, each with what libsodium says."""
    body, a, r = b"body", 0x6E6563746172, 0x686F6E6579
    message = ROLE + body
    key, nonce = edwards.multiply(edwards.BASE, a), edwards.multiply(edwards.BASE, r)
    public, big_r = edwards.encode(key), edwards.encode(nonce)

    def scalar(value: int) -> bytes:
        return value.to_bytes(32, "little")

    def case(name: str, public: bytes, signature: bytes, body: bytes = body, role: bytes = ROLE) -> Json:
        fields = {"public_key": public, "role": role, "body": body, "signature": signature}
        return {"name": name} | {field: value.hex() for field, value in fields.items()}

    s = (r + edwards.challenge(big_r, public, message) * a) % edwards.L
    honest = big_r + scalar(s)
    shifted_r = edwards.encode(edwards.add(nonce, edwards.ORDER_8))
    shifted_s = (r + edwards.challenge(shifted_r, public, message) * a) % edwards.L
    mixed = edwards.encode(edwards.add(key, edwards.ORDER_8))
    bodies = [bytes([n]) for n in range(256)]
    by_remainder: dict[int, tuple[bytes, bytes]] = {}  # signature, body
    for b in bodies:  # a key of mixed order verifies exactly when 8 divides the challenge
        k = edwards.challenge(big_r, mixed, ROLE + b)
        by_remainder.setdefault(min(k % 8, 1), (big_r + scalar((r + k * a) % edwards.L), b))
    small = edwards.small_order_encodings()
    invalid = [
        case("one byte wrong in R", public, bytes([honest[0] ^ 1]) + honest[1:]),
        case("one byte wrong in S", public, honest[:32] + bytes([honest[32] ^ 1]) + honest[33:]),
        case("one byte wrong in the body", public, honest, b"cody"),
        case("another role", public, honest, role=b"nectar/receipt/v1/server\n"),
        case("another key", edwards.encode(nonce), honest),
        case("63 bytes", public, honest[:-1]),
        case("65 bytes", public, honest + b"\0"),
        case("S + L, the malleable twin", public, big_r + scalar(s + edwards.L)),
        case("R and a point of order 8: only the cofactored equation holds", public, shifted_r + scalar(shifted_s)),
        case("a key of mixed order, its challenge no multiple of 8", mixed, *by_remainder[1]),
        case("a public key off the curve", scalar(2), honest),
    ]
    for i, point in enumerate(small):
        # With A = R = point and S = 0, the equation holds for every challenge that is 7 modulo 8.
        forged = next(b for b in bodies if edwards.challenge(point, point, ROLE + b) % 8 == 7)
        invalid.append(case(f"a public key and an R of small order ({i})", point, point + bytes(32), forged))
        k = edwards.challenge(point, public, message)
        invalid.append(case(f"an R of small order ({i})", public, point + scalar(k * a % edwards.L)))
    return {
        "small_order_encodings": [point.hex() for point in small],
        "valid": [
            case("an honest signature", public, honest),
            case("a key of mixed order, its challenge a multiple of 8", mixed, *by_remainder[0]),
        ],
        "invalid": [entry | {"error": "SignatureError"} for entry in invalid],
    }
