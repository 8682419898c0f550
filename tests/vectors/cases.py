"""What the makers of vectors share: bytes with something wrong in them, and cases that must be refused."""

from typing import Any

Json = dict[str, Any]


def flip(data: bytes, offset: int) -> bytes:
    """`data` with the lowest bit of one byte turned."""
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def put(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def refused(cases: dict[str, str] | dict[str, bytes], key: str, error: str = "MalformedError") -> list[Json]:
    return [
        {"name": name, key: data.hex() if isinstance(data, bytes) else data, "error": error}
        for name, data in cases.items()
    ]
