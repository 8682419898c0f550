"""Numbers and bytes in lines of text, each with one spelling."""

import base64
import re

from nectar_protocol.errors import MalformedError

MAX_DECIMAL = 2**63 - 1
DECIMAL = re.compile("0|[1-9][0-9]{0,18}", re.ASCII)


def parse_decimal(text: str, name: str) -> int:
    """An ASCII decimal from 0 to 2^63 - 1 without leading zeros. Raises MalformedError."""
    if not DECIMAL.fullmatch(text) or int(text) > MAX_DECIMAL:
        raise MalformedError(f"{name} is {text[:32]!r} instead of a decimal number up to 2^63 - 1")
    return int(text)


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode()


def parse_base64(text: str, name: str) -> bytes:
    """The bytes that `to_base64` turns into `text`. Raises MalformedError."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedError(f"{name} is not base64: {error}") from error
    if to_base64(data) != text:
        raise MalformedError(f"{name} is base64 in another spelling than the usual one")
    return data
