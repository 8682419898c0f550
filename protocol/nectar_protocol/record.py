"""Fixed structs as dataclasses: the annotations are the layout.

    class Line(Record):            server 32 | cap units 8
        server: Key
        cap_units: Count

Fields stand in the order of declaration, big-endian, without padding, behind the class's magic. A record that exists is
sound: whoever builds or reads one gets it whole, every field within its bounds, or a ProtocolError.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, Self, TypeVar, get_type_hints

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
    """How one field stands in bytes, where it is not a scalar."""

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

    @property
    def format(self) -> str:
        return {1: "B", 2: "H", 4: "I", 8: "Q"}[self.size]

    @property
    def is_any(self) -> bool:
        """Whether all that its bytes can hold is allowed."""
        return self.kind is int and self.least == 0 and self.most == (1 << 8 * self.size) - 1

    def check(self, value: int, name: str) -> None:
        if not self.least <= value <= self.most:
            raise MalformedError(f"{name} = {value}; {self.least} to {self.most} are allowed")

    def parse(self, value: int, name: str) -> int:
        self.check(value, name)
        try:
            return self.kind(value)
        except ValueError as error:
            raise MalformedError(str(error)) from error


@dataclass(frozen=True)
class Raw:
    """A byte string of one length."""

    size: int

    @property
    def format(self) -> str:
        return f"{self.size}s"

    def check(self, value: bytes, name: str) -> None:
        if len(value) != self.size:
            raise MalformedError(f"{name} has {len(value)} bytes; it takes {self.size}")


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


class Scalars(NamedTuple):
    """Neighbouring fields of fixed size, read and packed at once. `bounded` are those that their bytes do not bound."""

    layout: struct.Struct
    names: tuple[str, ...]
    bounded: tuple[tuple[str, Uint], ...]

    @classmethod
    def of(cls, fields: Sequence[tuple[str, Uint | Raw]]) -> "Scalars":
        layout = struct.Struct(">" + "".join(codec.format for _, codec in fields))
        bounded = ((name, codec) for name, codec in fields if isinstance(codec, Uint) and not codec.is_any)
        return cls(layout, tuple(name for name, _ in fields), tuple(bounded))

    def pack(self, record: "Record") -> bytes:
        return self.layout.pack(*[getattr(record, name) for name in self.names])

    def read(self, reader: Reader, values: dict[str, Any]) -> None:
        values.update(zip(self.names, self.layout.unpack(reader.take(self.layout.size)), strict=True))
        for name, codec in self.bounded:
            values[name] = codec.parse(values[name], name)


class Field(NamedTuple):
    """A field that stands by itself."""

    name: str
    codec: Codec

    def pack(self, record: "Record") -> bytes:
        return self.codec.pack(getattr(record, self.name))

    def read(self, reader: Reader, values: dict[str, Any]) -> None:
        values[self.name] = value = self.codec.read(reader)
        self.codec.check(value, self.name)


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
    def layout(cls) -> tuple[tuple[str, Uint | Raw | Codec], ...]:
        """(name, codec) of each field, in order."""
        hints = get_type_hints(cls, include_extras=True)
        return tuple((field.name, hints[field.name].__metadata__[0]) for field in fields(cls))

    @classmethod
    @cache
    def _parts(cls) -> tuple[Scalars | Field, ...]:
        parts: list[Scalars | Field] = []
        scalars: list[tuple[str, Uint | Raw]] = []
        for name, codec in cls.layout():
            if isinstance(codec, Uint | Raw):
                scalars.append((name, codec))
                continue
            parts += [Scalars.of(scalars), Field(name, codec)] if scalars else [Field(name, codec)]
            scalars = []
        return (*parts, Scalars.of(scalars)) if scalars else tuple(parts)

    def __post_init__(self) -> None:
        for name, codec in self.layout():
            codec.check(getattr(self, name), name)
        self.check()

    def check(self) -> None:
        """Raise MalformedError where fields, each sound, do not go together."""

    def pack(self) -> bytes:
        return self.MAGIC + b"".join([part.pack(self) for part in self._parts()])

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Raises MalformedError."""
        if reader.take(len(cls.MAGIC)) != cls.MAGIC:
            raise MalformedError(f"not a {cls.__name__} of a version that is known here")
        values: dict[str, Any] = {}
        for part in cls._parts():
            part.read(reader, values)
        record = sound(cls, **values)
        record.check()
        return record

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises MalformedError for anything that `pack` does not make."""
        reader = Reader(data)
        record = cls.read(reader)
        reader.end()
        return record
