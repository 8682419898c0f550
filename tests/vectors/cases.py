"""What the makers of vectors share: bytes with something wrong in them, and cases that must be refused."""

from typing import Any

from nectar_protocol.identity import Identity

Json = dict[str, Any]

RFC_8032_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
NODE = Identity.from_seed(RFC_8032_SEED)


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
