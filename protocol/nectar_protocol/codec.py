"""Big-endian integers and byte strings, read with bounds and written with checks."""

from nectar_protocol.errors import MalformedError


class Reader:
    """Walks over bytes from outside; every read past the end raises MalformedError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, count: int) -> bytes:
        end = self.offset + count
        if end > len(self.data):
            raise MalformedError(f"{end - len(self.data)} bytes are missing")
        chunk = self.data[self.offset : end]
        self.offset = end
        return bytes(chunk)

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a text is not UTF-8") from error

    def end(self) -> None:
        """Raise MalformedError unless everything has been read."""
        if self.offset != len(self.data):
            raise MalformedError(f"{len(self.data) - self.offset} bytes too many")


def uint(value: int, size: int, name: str) -> bytes:
    """`value` as `size` big-endian bytes. Raises MalformedError when it does not fit."""
    if not 0 <= value < 1 << (8 * size):
        raise MalformedError(f"{name} = {value} does not fit into {size} bytes")
    return value.to_bytes(size, "big")
