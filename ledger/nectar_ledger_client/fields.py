"""JSON from outside, read strictly: each field has its type and its bounds, or the answer is none.

Fields that are not asked for are passed over, so that a newer ledger may say more. Floats are never read.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PUBLIC_KEY_SIZE, PublicKey, public_key
from nectar_protocol.money import parse_amount
from nectar_protocol.record import MAX_COUNT
from nectar_protocol.textual import MAX_DECIMAL, parse_base64, parse_decimal

from nectar_ledger_client.errors import AnswerError

T = TypeVar("T")

MAX_TEXT: Final = 1024
MAX_WORDS: Final = 500
MAX_BLOB: Final = 64 << 10
HEX = re.compile("(?:[0-9a-f]{2})*", re.ASCII)


def parse_json(data: bytes) -> object:
    """Raises AnswerError for what is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the answer is not JSON ({error}): is there a ledger at this address?") from error


def clean(text: str) -> str:
    """A text from outside as people may see it."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_WORDS]).strip()


class Fields:
    """One JSON object; `where` names it in errors. Each method raises AnswerError for a field that is missing or not
    as it must be.
    """

    def __init__(self, value: object, where: str = "the answer") -> None:
        if not isinstance(value, Mapping):
            raise AnswerError(f"{where} is not a JSON object")
        self._values: Mapping[str, Any] = value
        self._where = where

    @classmethod
    def parse(cls, data: bytes, where: str = "the answer") -> "Fields":
        return cls(parse_json(data), where)

    def wrong(self, name: str, what: str) -> AnswerError:
        """The error to raise for this field."""
        return AnswerError(f"{name!r} in {self._where} {what}: is this ledger of another version?")

    def get(self, name: str) -> Any:
        """The field as JSON has it."""
        try:
            return self._values[name]
        except KeyError:
            raise self.wrong(name, "is missing") from None

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """The field as `read` reads it, which is a method of this object; None where it is null."""
        return None if self.get(name) is None else read(name)

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """A text of at most `most` characters."""
        value = self.get(name)
        if not isinstance(value, str) or len(value) > most:
            raise self.wrong(name, f"is not a text of at most {most} characters")
        return value

    def words(self, name: str) -> str:
        """A text for people: on one line, cut where it is too long, without control characters."""
        return clean(self.text(name, MAX_BLOB))

    def uint(self, name: str, most: int = MAX_COUNT) -> int:
        """A whole number from 0 to `most`; 2^53 − 1 if that is not given."""
        value = self.get(name)
        if type(value) is not int or not 0 <= value <= most:
            raise self.wrong(name, f"is not a whole number from 0 to {most}")
        return value

    def index(self, name: str) -> int:
        """The number of an entry, or how many there are."""
        return self.uint(name, MAX_DECIMAL)

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return value

    def hex(self, name: str, size: int) -> bytes:
        """`size` bytes as lower-case hex."""
        value = self.get(name)
        if not isinstance(value, str) or len(value) != 2 * size or not HEX.fullmatch(value):
            raise self.wrong(name, f"is not {size} bytes in lower-case hex")
        return bytes.fromhex(value)

    def digest(self, name: str) -> bytes:
        return self.hex(name, 32)

    def key(self, name: str) -> PublicKey:
        return public_key(self.hex(name, PUBLIC_KEY_SIZE))

    def amount(self, name: str) -> int:
        """µcr, 0 to 2^53 − 1."""
        return self.packed(name, lambda: parse_amount(self.text(name)))

    def signed_amount(self, name: str) -> int:
        """µcr, which may be negative."""
        value = self.text(name)
        if value.startswith("-") and value != "-0":
            return -self.packed(name, lambda: parse_amount(value[1:]))
        return self.amount(name)

    def total(self, name: str) -> int:
        """µcr of all that ever moved, 0 to 2^63 − 1."""
        return self.packed(name, lambda: parse_decimal(self.text(name), name))

    def blob(self, name: str, most: int = MAX_BLOB) -> bytes:
        """At most `most` bytes as base64."""
        value = self.text(name, 4 * (most // 3 + 1))
        return self.packed(name, lambda: parse_base64(value, name))

    def packed(self, name: str, read: Callable[[], T]) -> T:
        """What `read` makes of the field, with the protocol's errors as this answer's."""
        try:
            return read()
        except ProtocolError as error:
            raise self.wrong(name, f"is not as it must be ({error})") from error

    def child(self, name: str) -> "Fields":
        """The object in this field."""
        return Fields(self.get(name), f"{self._where}'s {name}")

    def children(self, name: str, most: int) -> list["Fields"]:
        """The objects of a list of at most `most`."""
        value = self.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, f"is not a list of at most {most}")
        return [Fields(item, f"{self._where}'s {name}[{number}]") for number, item in enumerate(value)]
