"""What other peers say they keep under a key: read without trust, and sampled before anything is verified.

Verifying a signature takes longer than all the rest, and a record may hold thousands of valid announcements by nodes
that do not exist.
"""

from collections.abc import Collection, Iterable, Sequence
from random import Random
from typing import Any, NamedTuple

import msgpack
from nectar_protocol.errors import MalformedError

DICTIONARY = 0x50  # hivemind's msgpack extension for [room, when the last expires, [[subkey, value, expires], …]]
MAX_ANSWER = 16_384  # records; hivemind's own limit of 4 MiB holds not many more


class Stored(NamedTuple):
    """A record as somebody keeps it: anything at all."""

    subkey: object
    value: bytes
    expires_s: float


def read_answer(data: bytes) -> list[Stored]:
    """The records in a peer's answer, one for each subkey. Raises MalformedError."""
    try:
        outer = _unpack(data)
        if not isinstance(outer, msgpack.ExtType) or outer.code != DICTIONARY:
            raise MalformedError("an answer that is no dictionary")
        _, _, records = _unpack(outer.data)
        return list({record[0]: Stored(*record) for record in records if _is_record(record)}.values())
    except MalformedError:
        raise
    except Exception as error:  # msgpack's have no common base
        raise MalformedError(f"an answer that cannot be read: {error}") from error


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, max_array_len=MAX_ANSWER, max_map_len=0)


def _is_record(record: object) -> bool:
    match record:
        case [str(), bytes(), float()]:
            return True
    return False


def thin(answer: Sequence[Stored], known: Collection[object], most: int, chance: Random) -> list[Stored]:
    """At most so many records of one answer: those whose subkeys are known first, then others at random."""
    first = [record for record in answer if record.subkey in known]
    others = [record for record in answer if record.subkey not in known]
    return (first + chance.sample(others, min(len(others), most)))[:most]


def sample(answers: Iterable[Iterable[Stored]], most: int) -> list[Stored]:
    """At most so many different records, taken from every answer in turn, so that no one's drowns the others'."""
    taken: dict[Stored, None] = {}
    waiting = [iter(answer) for answer in answers]
    while waiting and len(taken) < most:
        for records in list(waiting):
            record = next((record for record in records if record not in taken), None)
            if record is None:
                waiting.remove(records)
            elif len(taken) < most:
                taken[record] = None
    return list(taken)
