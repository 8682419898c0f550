"""Lists of a ledger, page by page: each begins where the one before ended."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, Self, TypeAlias, TypeVar

from nectar_ledger_client.errors import AnswerError
from nectar_ledger_client.fields import Fields

T = TypeVar("T")

# Of an item, in its list's order: a number, or hex where the order is that of bytes.
Key: TypeAlias = int | str

MAX_ITEMS: Final = 200
MAX_KEY: Final = 128
# Each hold has up to 256 lines.
HOLDS_AT_ONCE: Final = 50
ASTRAY: Final = "the list does not go on where its last page ended: is this ledger of another version?"


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items of a list, and the key behind which the next ones are; None at the end."""

    items: tuple[T, ...]
    next: Key | None

    @classmethod
    def parse(cls, data: bytes, read: Callable[[Fields], T | None]) -> Self:
        """Raises AnswerError. Items that `read` makes None of are left out."""
        fields = Fields.parse(data, "the page")
        items = fields.children("items", MAX_ITEMS)
        following = fields.optional("next", lambda name: _key(fields, name))
        if following is not None and not items:
            raise AnswerError(ASTRAY)
        return cls(tuple(found for found in map(read, items) if found is not None), following)


@dataclass(frozen=True)
class Cursor:
    """Where a page of at most `limit` items begins: behind `key`, from old to new if `ascending`, else downwards."""

    key: Key | None = None
    ascending: bool = False
    limit: int = MAX_ITEMS

    @classmethod
    def start(cls, after: int | None, limit: int = MAX_ITEMS) -> Self:
        """From the newest item on, or upwards from behind the key `after`."""
        return cls(after, after is not None, limit)

    def params(self) -> dict[str, str]:
        """As the query has it."""
        limit = {"limit": str(self.limit)}
        return limit if self.key is None else limit | {"after" if self.ascending else "before": str(self.key)}

    def following(self, page: Page[T]) -> "Cursor | None":
        """Where the next page begins; None if there is none. Raises AnswerError for a list that goes round."""
        if page.next is None:
            return None
        if self.key is not None and not self._is_behind(page.next, self.key):
            raise AnswerError(ASTRAY)
        return replace(self, key=page.next)

    def _is_behind(self, new: Key, last: Key) -> bool:
        if isinstance(new, int) and isinstance(last, int):
            return new > last if self.ascending else new < last
        return isinstance(new, str) and isinstance(last, str) and self.ascending and new > last


def _key(fields: Fields, name: str) -> Key:
    return fields.text(name, MAX_KEY) if isinstance(fields.get(name), str) else fields.index(name)
