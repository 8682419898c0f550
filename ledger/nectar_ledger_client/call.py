"""A call of a ledger's API as data: what is asked, and how the answer is read. Who sends it is another matter.

A `Flow` is a conversation of several calls: a generator that yields calls, is sent their answers and returns what they
come to. `LedgerClient` and `AsyncLedgerClient` run both, so that what is said and checked is written once.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from nectar_protocol.identity import Identity

T = TypeVar("T")

MAX_JSON_BYTES: Final = 16 << 20
# An answer has this long for its bytes, beside the time that any answer has.
SLOWEST_BYTES_PER_S: Final = 256 << 10


@dataclass(frozen=True)
class Call(Generic[T]):
    """`parse` makes the answer of the body's bytes, at most `max_bytes`, that come with `status`.

    It raises AnswerError for what the API does not say, UntrustedError for what does not verify. Where there is a
    `signer`, the request is signed as `signing` says.
    """

    path: str
    parse: Callable[[bytes], T]
    method: str = "GET"
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    signer: Identity | None = field(default=None, repr=False)
    status: int = 200
    max_bytes: int = MAX_JSON_BYTES

    @property
    def transfer_s(self) -> float:
        """What the bytes of this call may take on the slowest link that is waited for."""
        return (len(self.body or b"") + self.max_bytes) / SLOWEST_BYTES_PER_S


Flow: TypeAlias = Generator[Call[Any], Any, T]
