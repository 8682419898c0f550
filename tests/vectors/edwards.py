"""The Ed25519 group in plain integers (RFC 8032, section 5.1), to build signatures that no honest signer makes.

Slow and not constant in time: it must never see a real key.
"""

import hashlib

Point = tuple[int, int]

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def multiply(point: Point, scalar: int) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def lift(y: int) -> Point | None:
    """The point with this y and an even x, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return (P - x if x & 1 else x), y


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def _generator_of_small_order() -> Point:
    points = (multiply(point, L) for y in range(2, 99) if (point := lift(y)))
    return next(point for point in points if multiply(point, 4) != IDENTITY)


BASE = lift(4 * pow(5, -1, P) % P) or IDENTITY
ORDER_8 = _generator_of_small_order()


def small_order_encodings() -> list[bytes]:
    """The 14 strings that can be read as a point of small order: y or y + p, with either sign bit."""
    ys = {multiply(ORDER_8, n)[1] for n in range(8)}
    written = {y + p for y in ys for p in (0, P) if y + p < 1 << 255}
    return sorted((y | sign << 255).to_bytes(32, "little") for y in written for sign in (0, 1))
