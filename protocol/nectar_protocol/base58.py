"""Base58 in Bitcoin's alphabet, as libp2p writes peer IDs (https://datatracker.ietf.org/doc/draft-msporny-base58/)."""

from nectar_protocol.errors import MalformedError

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
DIGITS = {character: value for value, character in enumerate(ALPHABET)}
MAX_TEXT = 128


def encode(data: bytes) -> str:
    """Base58 text of `data`; a leading zero byte becomes a leading '1'."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    number, digits = int.from_bytes(data, "big"), []
    while number:
        number, digit = divmod(number, 58)
        digits.append(ALPHABET[digit])
    return "1" * zeros + "".join(reversed(digits))


def decode(text: str) -> bytes:
    """The bytes that `encode` turns into `text`. Raises MalformedError."""
    if len(text) > MAX_TEXT:
        raise MalformedError(f"base58 text of {len(text)} characters; at most {MAX_TEXT} are read")
    number = 0
    for character in text:
        if character not in DIGITS:
            raise MalformedError(f"{character!r} is not a base58 digit")
        number = number * 58 + DIGITS[character]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
