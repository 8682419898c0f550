"""Fixed structs as dataclasses: the annotations are the layout.

    class Line(Record):            server 32 | cap units 8
        server: Key
        cap_units: Count

Fields stand in the order of declaration, big-endian, without padding, behind the class's magic. A record that exists is
sound: whoever builds or reads one gets it whole, every field within its bounds, or a ProtocolError.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar, get_type_hints

from nectar_protocol.codec import Reader
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PUBLIC_KEY_SIZE, PublicKey

MAX_COUNT = 2**53 - 1  # JavaScript's integers are exact up to here
Sound = TypeVar("Sound")


def sound(type_: type[Sound], /, **fields: Any) -> Sound:
    """A frozen dataclass of fields that are known to be sound, without its own checks.

    Several times faster than its constructor, which sets each field by a call: for what is read thousands of times a
    second.
    """
    made = object.__new__(type_)
    made.__dict__.update(fields)
    return made


class Codec(Protocol):
    """How one field stands in bytes."""

    def check(self, value: Any, name: str) -> None: ...

    def pack(self, value: Any) -> bytes: ...

    def read(self, reader: Reader) -> Any: ...


@dataclass(frozen=True)
class Uint:
    """An unsigned integer of `size` bytes within [least, most]; `kind` is its enumeration, if it has one."""

    size: int
    most: int
    least: int = 0
    kind: Callable[[int], int] = int

    def check(self, value: int, name: str) -> None:
        if not self.least <= value <= self.most:
            raise MalformedError(f"{name} = {value}; {self.least} to {self.most} are allowed")

    def pack(self, value: int) -> bytes:
        return value.to_bytes(self.size, "big")

    def read(self, reader: Reader) -> int:
        try:
            return self.kind(reader.uint(self.size))
        except ValueError as error:
            raise MalformedError(str(error)) from error


@dataclass(frozen=True)
class Raw:
    """A byte string of one length."""

    size: int

    def check(self, value: bytes, name: str) -> None:
        if len(value) != self.size:
            raise MalformedError(f"{name} has {len(value)} bytes; it takes {self.size}")

    def pack(self, value: bytes) -> bytes:
        return value

    def read(self, reader: Reader) -> bytes:
        return reader.take(self.size)


class RawKey(Raw):
    """A public key, told from other strings of 32 bytes."""


@dataclass(frozen=True)
class Nested:
    """Another record, with its magic."""

    kind: "type[Record]"

    def check(self, value: "Record", name: str) -> None:
        if not isinstance(value, self.kind):
            raise MalformedError(f"{name} is not a {self.kind.__name__}")

    def pack(self, value: "Record") -> bytes:
        return value.pack()

    def read(self, reader: Reader) -> "Record":
        return self.kind.read(reader)


U16 = Annotated[int, Uint(2, 2**16 - 1)]
U32 = Annotated[int, Uint(4, 2**32 - 1)]
Count = Annotated[int, Uint(8, MAX_COUNT)]
Digest = Annotated[bytes, Raw(32)]
Key = Annotated[PublicKey, RawKey(PUBLIC_KEY_SIZE)]


@dataclass(frozen=True)
class Record:
    """A struct of fixed layout. Building one raises MalformedError for a field out of its range."""

    MAGIC: ClassVar[bytes] = b""  # empty in what only stands inside others

    @classmethod
    @cache
    def layout(cls) -> tuple[tuple[str, Codec], ...]:
        """(name, codec) of each field, in order."""
        hints = get_type_hints(cls, include_extras=True)
        return tuple((field.name, hints[field.name].__metadata__[0]) for field in fields(cls))

    def __post_init__(self) -> None:
        for name, codec in self.layout():
            codec.check(getattr(self, name), name)
        self.check()

    def check(self) -> None:
        """Raise MalformedError where fields, each sound, do not go together."""

    def pack(self) -> bytes:
        return self.MAGIC + b"".join(codec.pack(getattr(self, name)) for name, codec in self.layout())

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Raises MalformedError."""
        if reader.take(len(cls.MAGIC)) != cls.MAGIC:
            raise MalformedError(f"not a {cls.__name__} of a version that is known here")
        return cls(*(codec.read(reader) for _, codec in cls.layout()))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises MalformedError for anything that `pack` does not make."""
        reader = Reader(data)
        record = cls.read(reader)
        reader.end()
        return record
