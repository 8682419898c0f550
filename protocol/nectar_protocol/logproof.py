"""That an entry is in a log, checked offline: c2sp.org/tlog-proof.

    "c2sp.org/tlog-proof@v1" LF | ["extra " base64 LF] | "index " decimal LF | (base64(hash) LF)* | LF | checkpoint

`extra` is authenticated by nothing. The checkpoint is a signed note, with the lines of as many witnesses as its maker
had.
"""

from collections.abc import Collection
from dataclasses import dataclass

from nectar_protocol import note
from nectar_protocol.checkpoint import Witnessed, open_checkpoint
from nectar_protocol.errors import MalformedError
from nectar_protocol.merkle import Hash, leaf_hash, tree_hash
from nectar_protocol.note import Note, NoteKey
from nectar_protocol.proofs import MAX_HASHES, verify_inclusion
from nectar_protocol.textual import MAX_DECIMAL, parse_base64, parse_decimal, to_base64

MAGIC = "c2sp.org/tlog-proof@v1"
MAX_EXTRA = 64 * 1024
# Base64 makes four characters of three bytes; 64 lines of hashes of 45, and the shorter lines.
MAX_HEAD = 4 * (MAX_EXTRA // 3 + 1) + 45 * MAX_HASHES + 128
MAX_BYTES = MAX_HEAD + note.MAX_BYTES


@dataclass(frozen=True)
class LogProof:
    """Entry `index` of the log whose checkpoint this is; `hashes` is its inclusion proof."""

    index: int
    hashes: tuple[Hash, ...]
    checkpoint: Note
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_DECIMAL:
            raise MalformedError(f"there is no entry {self.index}")
        if len(self.hashes) > MAX_HASHES or len(self.extra) > MAX_EXTRA:
            raise MalformedError(f"a proof has at most {MAX_HASHES} hashes and {MAX_EXTRA} bytes of extra data")
        for node in self.hashes:
            tree_hash(node)

    def pack(self) -> bytes:
        lines = [MAGIC, f"index {self.index}", *map(to_base64, self.hashes), "", ""]
        if self.extra:
            lines.insert(1, f"extra {to_base64(self.extra)}")
        return "\n".join(lines).encode() + self.checkpoint.pack()

    @classmethod
    def unpack(cls, data: bytes) -> "LogProof":
        """Parse without verifying. Raises MalformedError for anything that `pack` does not make."""
        if len(data) > MAX_BYTES:
            raise MalformedError(f"a proof of {len(data)} bytes; at most {MAX_BYTES} are read")
        head, _, checkpoint = data.partition(b"\n\n")
        try:
            magic, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise MalformedError("a proof's lines before the checkpoint are not ASCII") from error
        if magic != MAGIC:
            raise MalformedError(f"not a proof: it does not begin with {MAGIC}")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = parse_base64(lines.pop(0).removeprefix("extra "), "the extra data")
            if not extra:
                raise MalformedError("a line for extra data without any")
        if not lines or not lines[0].startswith("index "):
            raise MalformedError("a proof has a line with the index of its entry")
        index = parse_decimal(lines.pop(0).removeprefix("index "), "the index")
        if len(lines) > MAX_HASHES:
            raise MalformedError(f"a proof of {len(lines)} hashes; at most {MAX_HASHES} are read")
        hashes = tuple(tree_hash(parse_base64(line, "a hash")) for line in lines)
        return cls(index, hashes, Note.unpack(checkpoint), extra)

    def verify(self, entry: bytes, log: NoteKey, witnesses: Collection[NoteKey] = ()) -> Witnessed:
        """The checkpoint under which `entry` stands at `index`. Raises SignatureError, ProofError or MalformedError."""
        witnessed = open_checkpoint(self.checkpoint, log, witnesses)
        checkpoint = witnessed.checkpoint
        verify_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return witnessed
