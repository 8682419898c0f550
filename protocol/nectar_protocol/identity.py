"""One Ed25519 key is a machine's libp2p peer ID and the name under which it signs.

Three forms of the same 32 bytes:

* the key file, which is libp2p's own: protobuf `PrivateKey{Type = Ed25519, Data = seed || public key}`;
* the peer ID as text, `12D3KooW…`: base58 of the identity multihash of protobuf `PublicKey`;
* the public key, 32 bytes, as it stands in every signed object.

Source: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md. Signatures are RFC 8032 under libsodium's
verification rule.
"""

from dataclasses import dataclass, field
from typing import NewType

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from nectar_protocol import base58
from nectar_protocol.errors import IdentityError, MalformedError, SignatureError

PublicKey = NewType("PublicKey", bytes)
PeerID = NewType("PeerID", str)

PUBLIC_KEY_SIZE = 32
SIGNATURE_SIZE = 64
# PrivateKey: field 1 (type) = 1 (Ed25519), field 2 (data) of 64 bytes.
KEY_FILE_PREFIX = bytes.fromhex("08011240")
KEY_FILE_SIZE = len(KEY_FILE_PREFIX) + 64
# Identity multihash (00) of 36 bytes (24): PublicKey with type 1 (Ed25519) and data of 32 bytes.
PEER_ID_PREFIX = bytes.fromhex("002408011220")


def public_key(data: bytes) -> PublicKey:
    """`data` as a public key. Raises IdentityError unless it is 32 bytes."""
    if len(data) != PUBLIC_KEY_SIZE:
        raise IdentityError(f"an Ed25519 public key is {PUBLIC_KEY_SIZE} bytes, not {len(data)}")
    return PublicKey(data)


def check_registrable(public: PublicKey) -> None:
    """Raise IdentityError unless `public` is a canonical point of the group of prime order.

    Every honest key is. Libraries disagree on what a key of small order has signed, so none enters a ledger.
    """
    if not crypto_core_ed25519_is_valid_point(public):
        raise IdentityError(f"{public.hex()} is not a key that can be registered; make one with an Ed25519 library")


def peer_id(public: PublicKey) -> PeerID:
    """The libp2p peer ID of a public key."""
    return PeerID(base58.encode(PEER_ID_PREFIX + public))


def parse_peer_id(text: str) -> PublicKey:
    """The public key inside a peer ID. Raises IdentityError for anything but the peer ID of an Ed25519 key."""
    try:
        raw = base58.decode(text)
    except MalformedError as error:
        raise IdentityError(f"{text[:64]!r} is not a peer ID: {error}") from error
    if len(raw) != len(PEER_ID_PREFIX) + PUBLIC_KEY_SIZE or not raw.startswith(PEER_ID_PREFIX):
        raise IdentityError(f"{text[:64]!r} is not the peer ID of an Ed25519 key (those begin with 12D3KooW)")
    return PublicKey(raw[len(PEER_ID_PREFIX) :])


@dataclass(frozen=True)
class Identity:
    """A private key with what follows from it. Never printed: its repr is the peer ID alone."""

    key: SigningKey = field(repr=False)
    public: PublicKey = field(init=False, repr=False)
    peer_id: PeerID = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", public_key(bytes(self.key.verify_key)))
        object.__setattr__(self, "peer_id", peer_id(self.public))

    @classmethod
    def generate(cls) -> "Identity":
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """The identity of a 32-byte seed. Raises IdentityError for another length."""
        if len(seed) != PUBLIC_KEY_SIZE:
            raise IdentityError(f"an Ed25519 seed is {PUBLIC_KEY_SIZE} bytes, not {len(seed)}")
        return cls(SigningKey(seed))

    @classmethod
    def from_key_file(cls, data: bytes) -> "Identity":
        """Read libp2p's private key file. Raises IdentityError."""
        if len(data) != KEY_FILE_SIZE or not data.startswith(KEY_FILE_PREFIX):
            raise IdentityError("this is not a libp2p Ed25519 private key file")
        seed, public = data[4:36], data[36:]
        identity = cls.from_seed(seed)
        if identity.public != public:
            raise IdentityError("the two halves of this key file do not belong together")
        return identity

    def to_key_file(self) -> bytes:
        """The 68 bytes that p2pd loads as its identity."""
        return KEY_FILE_PREFIX + bytes(self.key) + self.public

    def sign(self, role: bytes, body: bytes) -> bytes:
        """A signature of 64 bytes over the role's prefix followed by the body."""
        return bytes(self.key.sign(role + body).signature)


def verify(public: PublicKey, role: bytes, body: bytes, signature: bytes) -> None:
    """Return if `signature` is `public`'s over this body in this role; else raise SignatureError."""
    try:
        VerifyKey(public).verify(role + body, signature)
    except (BadSignatureError, ValueError) as error:
        raise SignatureError(f"not signed by {peer_id(public)} as {role.decode().strip()}") from error
