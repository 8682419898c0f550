"""What the sequencer asks of the ledger's core, and what it answers to who sent a command.

A machine is state in memory that changes by `apply` alone and is a function of the log: no clock, no randomness, no
I/O. The sequencer opens it from its own tables, and again after a commit that failed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Row = tuple[object, ...]  # all columns of a table, in its order
ReadRows = Callable[[str], Iterator[Row]]  # a table's rows, in the order of its primary key
Command = TypeVar("Command", contravariant=True)


@dataclass(frozen=True)
class Accepted:
    """Entries to append, none if the command changes nothing, and an answer that repeats itself."""

    entries: Sequence[bytes]
    response: bytes = b""


@dataclass(frozen=True)
class Rejected:
    """Why not: a code for programs and words for people. Nothing is recorded."""

    code: str
    message: str


@dataclass(frozen=True)
class Answer:
    """A command that was accepted, and is durable. `index`: of its first entry, None if it changed nothing."""

    index: int | None
    response: bytes


@dataclass(frozen=True)
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

    def apply(self, index: int, entry: bytes) -> Iterable[tuple[str, Row]]:
        """Change the state by the entry at `index`. Tables' names and rows that it added or changed."""


OpenMachine = Callable[[ReadRows], Machine[Command]]
