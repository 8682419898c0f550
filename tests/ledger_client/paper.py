"""A log on paper: entries in a list, and whatever a ledger serves of them, true or forged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nectar_ledger_client.call import Call, Flow
from nectar_ledger_client.errors import LedgerClientError, RefusedError
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import Identity
from nectar_protocol.logproof import LogProof
from nectar_protocol.merkle import leaf_hash
from nectar_protocol.note import Kind, Note, NoteKey, cosign_text
from nectar_protocol.proofs import leaves_reader, prove_consistency, prove_inclusion, subtree_root
from nectar_protocol.textual import to_base64
from nectar_protocol.tiles import ENTRIES, WIDTH, Tile, pack_bundle

from tests.ledger.world import ORIGIN, person

T = TypeVar("T")

LOG = NoteKey(ORIGIN, Kind.NOTE, person("log").public)
SEEN_S = 1_800_000_000


def witness_key(name: str) -> NoteKey:
    return NoteKey(name, Kind.COSIGNATURE, person(name).public)


@dataclass
class PaperLog:
    """Signs as `identity`, and by the witnesses named; `size` is how much of it is published."""

    entries: list[bytes] = field(default_factory=list)
    identity: Identity = field(default_factory=lambda: person("log"))
    witnesses: tuple[str, ...] = ()
    size: int = 0

    def publish(self, entries: Iterable[bytes], *witnesses: str) -> "PaperLog":
        self.entries += entries
        self.size, self.witnesses = len(self.entries), witnesses
        return self

    def fork(self, at: int, *entries: bytes) -> "PaperLog":
        """Another log with the same key and the same first entries."""
        return PaperLog(identity=self.identity).publish([*self.entries[:at], *entries])

    def checkpoint(self, size: int | None = None) -> Note:
        size = self.size if size is None else size
        checkpoint = Checkpoint(ORIGIN, size, subtree_root(self._read(), 0, size))
        lines = [cosign_text(checkpoint.text, name, person(name), SEEN_S) for name in self.witnesses]
        return checkpoint.signed(self.identity, lines)

    def proof(self, index: int) -> LogProof:
        hashes = prove_inclusion(self._read(), index, self.size)
        return LogProof(index, tuple(hashes), self.checkpoint(), self.entries[index])

    def consistency(self, old: int, new: int) -> bytes:
        return "".join(f"{to_base64(one)}\n" for one in prove_consistency(self._read(), old, new)).encode()

    def tile(self, tile: Tile) -> bytes:
        start = tile.index * WIDTH
        if tile.level == ENTRIES:
            return pack_bundle(self.entries[start : start + tile.width])
        read, level = self._read(), 8 * tile.level
        return b"".join(read(level, start + offset) for offset in range(tile.width))

    def answer(self, call: Call[Any]) -> bytes:
        """What a ledger with this log answers. Raises RefusedError for what it has not."""
        try:
            match call.path.removeprefix("/log/").split("/"):
                case ["checkpoint"]:
                    return self.checkpoint().pack()
                case ["consistency"]:
                    return self.consistency(int(call.params["old"]), int(call.params["new"]))
                case ["proof", index]:
                    return self.proof(int(index)).pack()
            return self.tile(Tile.parse(call.path.removeprefix("/log/")))
        except MalformedError as error:
            raise RefusedError("malformed", str(error), 400) from error

    def _read(self) -> Any:
        return leaves_reader([leaf_hash(entry) for entry in self.entries])


class Desk:
    """Runs flows against a log on paper; `asked` are the paths of the calls."""

    def __init__(self, log: PaperLog) -> None:
        self.log = log
        self.asked: list[str] = []

    def run(self, flow: Flow[T]) -> T:
        try:
            call = next(flow)
            while True:
                self.asked.append(call.path)
                try:
                    answer = call.parse(self.log.answer(call))
                except LedgerClientError as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result


def fillers(count: int, seed: Sequence[object] = ()) -> list[bytes]:
    """Entries that mean nothing."""
    return [repr((number, *seed)).encode() for number in range(count)]
