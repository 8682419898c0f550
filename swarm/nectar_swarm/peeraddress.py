"""A peer and where it can be dialled, as commands and settings name it. Imports nothing heavy."""

from dataclasses import dataclass

from nectar_protocol.address import Address, split_multiaddr
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PeerID, peer_id


@dataclass(frozen=True)
class PeerAddress:
    """A peer and the ways to dial it, read from multiaddrs that end in `/p2p/PEER`."""

    peer: PeerID
    addresses: tuple[Address, ...]

    @classmethod
    def parse(cls, text: str) -> "PeerAddress":
        """Raises MalformedError or IdentityError, which say the form that is wanted."""
        address, target = split_multiaddr(text)
        if target is None:
            raise ProtocolError(f"{text[:128]!r} names no peer; it must end in /p2p/12D3KooW…")
        return cls(peer_id(target), (address,))

    def __str__(self) -> str:
        return f"{self.addresses[0]}/p2p/{self.peer}"
