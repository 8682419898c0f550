"""What a log says of itself: its size and its root, signed (c2sp.org/tlog-checkpoint).

    origin LF | size, decimal LF | base64(root) LF | extension lines, each with LF       as the text of a signed note

The log signs under its origin as the key's name; witnesses add cosignatures to the same text. How many witnesses are
enough is for the reader to say.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nectar_protocol.errors import MalformedError, SignatureError
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import EMPTY_ROOT, Hash, tree_hash, tree_size
from nectar_protocol.note import MAX_NAME, Note, NoteKey, NoteSignature, check_text, sign_text
from nectar_protocol.textual import parse_base64, parse_decimal, to_base64

MAX_EXTENSIONS = 16


@dataclass(frozen=True)
class Checkpoint:
    """The log `origin` has `size` entries, and `root` over them. Our logs write no extensions."""

    origin: str
    size: int
    root: Hash
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.origin.encode(errors="surrogatepass")) <= MAX_NAME:
            raise MalformedError(f"an origin has 1 to {MAX_NAME} bytes")
        if len(self.extensions) > MAX_EXTENSIONS:
            raise MalformedError(f"{len(self.extensions)} extension lines; at most {MAX_EXTENSIONS} are read")
        if any("\n" in line for line in (self.origin, *self.extensions)) or not all(self.extensions):
            raise MalformedError("a line of a checkpoint is empty, or has a line feed inside")
        check_text(self.text)
        tree_size(self.size)
        if tree_hash(self.root) != EMPTY_ROOT and self.size == 0:
            raise MalformedError("a checkpoint of no entries has a root other than that of the empty tree")

    @property
    def text(self) -> str:
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note. Raises MalformedError for anything that `text` does not give."""
        match text.split("\n"):
            case [origin, size, root, *extensions, ""]:
                root_hash = tree_hash(parse_base64(root, "the root"))
                return cls(origin, parse_decimal(size, "the size"), root_hash, tuple(extensions))
        raise MalformedError("a checkpoint is the lines origin, size and root")

    def signed(self, identity: Identity, cosignatures: Iterable[NoteSignature] = ()) -> Note:
        """The checkpoint as a note, signed by the log. Raises MalformedError for an origin that names no key."""
        return Note(self.text, (sign_text(self.text, self.origin, identity), *cosignatures))


@dataclass(frozen=True)
class Witnessed:
    """A checkpoint whose log signature was verified, and who else signed: the key of a witness, its time in s."""

    checkpoint: Checkpoint
    witnesses: dict[NoteKey, int | None]


def open_checkpoint(note: Note, log: NoteKey, witnesses: Collection[NoteKey] = ()) -> Witnessed:
    """Verify a note and read it as a checkpoint of `log`. Raises SignatureError if the log did not sign it, or a known
    witness's line is wrong; MalformedError if it is no checkpoint of the log's origin.
    """
    signed = note.verify([log, *witnesses])
    if log not in signed:
        raise SignatureError(f"the checkpoint is not signed by its log, {log.name!r}")
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != log.name:
        raise MalformedError(f"a checkpoint of {checkpoint.origin!r}, signed by {log.name!r}")
    return Witnessed(checkpoint, {key: time_s for key, time_s in signed.items() if key != log})
