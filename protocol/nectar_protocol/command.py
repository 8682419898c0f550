"""A command: what somebody asks of a ledger, signed, so that it can be logged as it is.

    magic 8 | ledger 32 | command id 16 | expires ms 8 | fields of its kind | signatures 64*

The sender makes the id at random and keeps it before sending: the same id with the same body gets the same answer, with
another body a refusal. Each signature covers "nectar/NAME/v1/SIGNER\\n" and the body, where SIGNER is the name of the
field that holds the key.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from nectar_protocol.errors import IdentityError, MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE, Identity, PublicKey, check_registrable, verify
from nectar_protocol.record import Count, Digest, Raw, RawKey, Record


@dataclass(frozen=True)
class Command(Record):
    """What every command has. `ledger` is the hash of a genesis; after `expires_ms` (Unix time) nobody may take it."""

    NAME: ClassVar[str] = ""
    SIGNERS: ClassVar[tuple[str, ...]] = ()  # the fields whose keys sign, in the order of their signatures

    ledger: Digest
    id: Annotated[bytes, Raw(16)]
    expires_ms: Count

    @cached_property
    def body_hash(self) -> bytes:
        """SHA-256 of what is signed. Signatures are left out: a key can make many for one body."""
        return hashlib.sha256(self.pack()).digest()

    def signers(self) -> dict[bytes, PublicKey]:
        """Role → key, in the order of the signatures."""
        return {f"nectar/{self.NAME}/v1/{name}\n".encode(): getattr(self, name) for name in self.SIGNERS}

    def signed(self, *identities: Identity) -> "SignedCommand":
        """The command with a signature of each of its signers, given in any order. Raises IdentityError."""
        by_key = {identity.public: identity for identity in identities}
        signers = self.signers()
        if set(by_key) != set(signers.values()):
            raise IdentityError(f"{self.NAME} is signed by its {' and its '.join(self.SIGNERS)}, and by nobody else")
        body = self.pack()
        return SignedCommand(self, tuple(by_key[key].sign(role, body) for role, key in signers.items()))

    def sign_as(self, signer: str, identity: Identity) -> bytes:
        """One signer's signature, for a command whose keys lie on different machines. Raises IdentityError."""
        if signer not in self.SIGNERS or getattr(self, signer) != identity.public:
            raise IdentityError(f"{identity.peer_id} does not sign this {self.NAME} as its {signer}")
        return identity.sign(f"nectar/{self.NAME}/v1/{signer}\n".encode(), self.pack())


@dataclass(frozen=True)
class SignedCommand:
    """A command and its signatures, which are checked by `verify` alone."""

    command: Command
    signatures: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if [len(signature) for signature in self.signatures] != [SIGNATURE_SIZE] * len(self.command.SIGNERS):
            raise MalformedError(f"{self.command.NAME} has {len(self.command.SIGNERS)} signatures of 64 bytes")

    def pack(self) -> bytes:
        return self.command.pack() + b"".join(self.signatures)

    def verify(self) -> None:
        """Raises SignatureError unless each signer signed, IdentityError for a key that no ledger may register."""
        body = self.command.pack()
        for (role, key), signature in zip(self.command.signers().items(), self.signatures, strict=True):
            verify(key, role, body, signature)
        for name, codec in self.command.layout():
            if isinstance(codec, RawKey):
                check_registrable(getattr(self.command, name))
