"""The calls of a ledger's log, in the formats of C2SP. What they answer is not verified here: `LogFollower` does that,
and `verifier`.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from nectar_protocol import logproof, note
from nectar_protocol.errors import ProtocolError
from nectar_protocol.logproof import LogProof
from nectar_protocol.merkle import HASH_SIZE, Hash, tree_hash
from nectar_protocol.note import Note
from nectar_protocol.proofs import MAX_HASHES
from nectar_protocol.textual import parse_base64
from nectar_protocol.tiles import ENTRIES, MAX_ENTRY_BYTES, WIDTH, Tile

from nectar_ledger_client.call import Call
from nectar_ledger_client.errors import AnswerError, UntrustedError

S = TypeVar("S")
T = TypeVar("T")

MAX_LINE: Final = 64


def checkpoint(witnesses: int = 0) -> Call[Note]:
    """The log's newest checkpoint, or the newest that so many witnesses have cosigned."""

    def parse(data: bytes) -> Note:
        return _read("the checkpoint", Note.unpack, data)

    return Call("/log/checkpoint", parse, params=_cosigned(witnesses), max_bytes=note.MAX_BYTES)


def tile(tile: Tile) -> Call[bytes]:
    """A tile's bytes, which prove nothing by themselves."""
    most = WIDTH * (2 + MAX_ENTRY_BYTES if tile.level == ENTRIES else HASH_SIZE)
    return Call(f"/log/{tile.path}", bytes, max_bytes=most)


def proof(index: int, witnesses: int = 0) -> Call[LogProof]:
    """The proof of an entry under such a checkpoint; what it is a proof of, `entry` has."""

    def parse(data: bytes) -> LogProof:
        found = _read("the proof", LogProof.unpack, data)
        if found.index != index:
            raise UntrustedError(f"asked for the proof of entry {index}, the ledger answers with that of {found.index}")
        return found

    return Call(f"/log/proof/{index}", parse, params=_cosigned(witnesses), max_bytes=logproof.MAX_BYTES)


def consistency(old: int, new: int) -> Call[list[Hash]]:
    """That the log of `new` entries begins with that of `old`: hashes, which `verify_consistency` checks."""

    def parse(data: bytes) -> list[Hash]:
        lines = data.decode(errors="replace").splitlines()
        if len(lines) > MAX_HASHES:
            raise AnswerError(f"a proof of {len(lines)} hashes; at most {MAX_HASHES} are read")
        return [_read("a hash", _hash, line) for line in lines]

    return Call("/log/consistency", parse, params={"old": str(old), "new": str(new)}, max_bytes=MAX_LINE * MAX_HASHES)


def _cosigned(witnesses: int) -> dict[str, str]:
    return {"witnesses": str(witnesses)} if witnesses else {}


def _hash(line: str) -> Hash:
    return tree_hash(parse_base64(line, "a hash"))


def _read(name: str, read: Callable[[S], T], source: S) -> T:
    try:
        return read(source)
    except ProtocolError as error:
        raise AnswerError(f"{name} is none ({error}): is there a ledger at this address?") from error
