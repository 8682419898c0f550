"""What the sequencer asks of the ledger's core, and what it answers to who sent a command.

A machine is state in memory that changes by `apply` alone and is a function of the log: no clock, no randomness, no
I/O. The sequencer opens it from its own tables, and again after a commit that failed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Row = tuple[object, ...]  # all columns of a table, in its order
ReadRows = Callable[[str], Iterator[Row]]  # the rows that still count of a table, in the order of its primary key
Command = TypeVar("Command", contravariant=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to append, and its sealed part: what the ledger keeps beside the log, if the entry has a seal."""

    entry: bytes
    sealed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Entries to append, none if the command changes nothing, and an answer that repeats itself."""

    drafts: Sequence[Draft]
    response: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why not: a code for programs and words for people. Nothing is recorded."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A command that was accepted, and is durable. `index`: of its first entry, None if it changed nothing."""

    index: int | None
    response: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """By what a command is known when it is sent again: its ID, chosen by the sender, and the hash of its body."""

    id: bytes
    body_hash: bytes


Outcome = Answer | Rejected


class Machine(Protocol[Command]):
    def key(self, command: Command) -> Key | None:
        """None for commands whose repetition `decide` itself finds to change nothing."""

    def decide(self, command: Command, now_ms: int) -> Accepted | Rejected:
        """What the command means now. Changes nothing. `now_ms` never falls."""

    def apply(self, index: int, entry: bytes, sealed: bytes | None) -> None:
        """Change the state by the entry at `index`."""

    def take_rows(self) -> Iterable[tuple[str, Row]]:
        """Tables' names and the rows that entries added or changed since the last call, each once."""


OpenMachine = Callable[[ReadRows, int, int], Machine[Command]]  # tables, the log's size, its newest time in ms
