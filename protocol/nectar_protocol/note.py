"""Signed notes: text with signature lines below it, c2sp.org/signed-note.

    text, ends in a line feed | line feed | ("— " name " " base64(key ID 4 | signature) line feed)+

    key ID = SHA-256(name | line feed | kind u8 | public key), its first four bytes
    kind     01 Ed25519 over the text
             04 Ed25519 over "cosignature/v1\\ntime <s>\\n" | text, signature = time u64 | 64 bytes (tlog-cosignature)

Lines of unknown keys are passed over, whatever they hold: other kinds of signature may stand beside ours. A line of a
known key that does not verify condemns the note. Nobody may trust a text before `verify` has returned.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from nectar_protocol.codec import uint
from nectar_protocol.errors import IdentityError, MalformedError, SignatureError
from nectar_protocol.identity import PUBLIC_KEY_SIZE, SIGNATURE_SIZE, Identity, PublicKey, verify
from nectar_protocol.textual import MAX_DECIMAL, parse_base64, to_base64

KEY_ID_SIZE = 4
TIME_SIZE = 8
# Sixteen signatures must be accepted, and post-quantum ones have up to 5 kB.
MAX_BYTES = 256 * 1024
MAX_SIGNATURES = 64
MAX_NAME = 255
MAX_VKEY = 1024
EM_DASH = "\u2014"
COSIGNATURE_ROLE = b"cosignature/v1\n"


class Kind(IntEnum):
    """How a key signs: the text itself, or the text with the time at which it was seen."""

    NOTE = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class NoteKey:
    """A public key that signs notes under a name."""

    name: str
    kind: Kind
    public: PublicKey

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def key_id(self) -> bytes:
        content = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(content).digest()[:KEY_ID_SIZE]

    def __str__(self) -> str:
        """The key as text ("vkey"), as it stands in lists of logs and witnesses."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> "NoteKey":
        """Read a vkey. Raises MalformedError, or IdentityError for a kind of key that is not read here."""
        parts = text.split("+", 2)
        if len(text) > MAX_VKEY or len(parts) != 3:
            raise MalformedError(f"{text[:64]!r} is not a key; write NAME+ID+KEY, as the log or witness publishes it")
        name, key_id, material = parts[0], parts[1], parse_base64(parts[2], "the key")
        if len(material) != 1 + PUBLIC_KEY_SIZE or material[0] not in set(Kind):
            raise IdentityError(f"the key of {name[:64]!r} is not an Ed25519 key of kind 1 or 4")
        key = cls(name, Kind(material[0]), PublicKey(material[1:]))
        if key.key_id.hex() != key_id:
            raise MalformedError(f"the ID of the key of {name[:64]!r} is {key.key_id.hex()}, not {key_id[:16]!r}")
        return key


@dataclass(frozen=True)
class NoteSignature:
    """A signature line: who says to have signed, and the bytes."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.key_id) != KEY_ID_SIZE or not self.signature:
            raise MalformedError(f"the line of {self.name!r} is too short for a signature")

    def __str__(self) -> str:
        return f"{EM_DASH} {self.name} {to_base64(self.key_id + self.signature)}\n"

    @classmethod
    def parse(cls, line: str) -> "NoteSignature":
        """Read a line without its line feed. Raises MalformedError."""
        match line.split(" "):
            case [dash, name, encoded] if dash == EM_DASH:
                data = parse_base64(encoded, "a signature")
                return cls(name, data[:KEY_ID_SIZE], data[KEY_ID_SIZE:])
        raise MalformedError(f"{line[:64]!r} is not a signature line")

    def verify(self, key: NoteKey, text: str) -> int | None:
        """The time in s of a cosignature, None for a signature of the text alone. Raises SignatureError."""
        wrong = f"the signature of {key.name!r} is not one over this text"
        match key.kind:
            case Kind.NOTE:
                role, time_s, signature = b"", None, self.signature
            case Kind.COSIGNATURE:
                time_s, signature = int.from_bytes(self.signature[:TIME_SIZE], "big"), self.signature[TIME_SIZE:]
                if time_s > MAX_DECIMAL:
                    raise SignatureError(f"{wrong}: its time is beyond 2^63 - 1")
                role = _cosignature_role(time_s)
        if len(signature) != SIGNATURE_SIZE:
            raise SignatureError(f"{wrong}: it has {len(signature)} bytes instead of {SIGNATURE_SIZE}")
        try:
            verify(key.public, role, text.encode(), signature)
        except SignatureError as error:
            raise SignatureError(wrong) from error
        return time_s


@dataclass(frozen=True)
class Note:
    """A text and the signatures below it."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        check_text(self.text)
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise MalformedError(f"a note has 1 to {MAX_SIGNATURES} signatures, not {len(self.signatures)}")

    def pack(self) -> bytes:
        """The note as UTF-8. Raises MalformedError over 256 KiB."""
        data = f"{self.text}\n{''.join(map(str, self.signatures))}".encode()
        if len(data) > MAX_BYTES:
            raise MalformedError(f"a note of {len(data)} bytes; at most {MAX_BYTES} are read")
        return data

    @classmethod
    def unpack(cls, data: bytes) -> "Note":
        """Parse without verifying. Raises MalformedError for anything that `pack` does not make."""
        if len(data) > MAX_BYTES:
            raise MalformedError(f"a note of {len(data)} bytes; at most {MAX_BYTES} are read")
        try:
            note = data.decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a note is not UTF-8") from error
        text, blank, block = note.rpartition("\n\n")
        if not blank or not block.endswith("\n"):
            raise MalformedError("a note is text, an empty line, and whole lines with signatures")
        lines = block[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise MalformedError(f"a note with {len(lines)} signatures; at most {MAX_SIGNATURES} are read")
        return cls(text + "\n", tuple(map(NoteSignature.parse, lines)))

    def verify(self, keys: Iterable[NoteKey]) -> dict[NoteKey, int | None]:
        """Which of `keys` signed, with the times in s of cosignatures; of a key's several lines the first counts.

        Raises SignatureError if none did, or if a line in the name and with the ID of one is not its signature.
        """
        known = {(key.name, key.key_id): key for key in keys}
        signed: dict[NoteKey, int | None] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None:
                signed.setdefault(key, signature.verify(key, self.text))
        if not signed:
            raise SignatureError("the note has no signature of a known key")
        return signed


def sign_text(text: str, name: str, identity: Identity) -> NoteSignature:
    """A line of kind 1. Raises MalformedError for a text or a name that no note has."""
    check_text(text)
    key = NoteKey(name, Kind.NOTE, identity.public)
    return NoteSignature(name, key.key_id, identity.sign(b"", text.encode()))


def cosign_text(text: str, name: str, identity: Identity, time_s: int) -> NoteSignature:
    """A line of kind 4: that `text` was seen at `time_s` (Unix time). Raises MalformedError."""
    check_text(text)
    if not 0 <= time_s <= MAX_DECIMAL:
        raise MalformedError(f"time {time_s} s is not within 0 to 2^63 - 1")
    key = NoteKey(name, Kind.COSIGNATURE, identity.public)
    signature = identity.sign(_cosignature_role(time_s), text.encode())
    return NoteSignature(name, key.key_id, uint(time_s, TIME_SIZE, "time_s") + signature)


def check_name(name: str) -> None:
    """Raise MalformedError for what cannot be the name of a key."""
    if not 0 < len(name.encode(errors="surrogatepass")) <= MAX_NAME or "+" in name:
        raise MalformedError(f"{name[:64]!r} is not a key's name: 1 to {MAX_NAME} bytes without '+'")
    if any(c <= " " or c.isspace() or "\ud800" <= c <= "\udfff" for c in name):
        raise MalformedError(f"the key's name {name[:64]!r} has a space or a control character")


def check_text(text: str) -> None:
    """Raise MalformedError for what cannot be the text of a note."""
    if not text.endswith("\n"):
        raise MalformedError("a note's text ends in a line feed")
    if any((c < " " and c != "\n") or "\ud800" <= c <= "\udfff" for c in text):
        raise MalformedError("a note's text has a control character or a surrogate")


def _cosignature_role(time_s: int) -> bytes:
    return COSIGNATURE_ROLE + f"time {time_s}\n".encode()
