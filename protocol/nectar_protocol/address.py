"""Where a peer can be dialled: TCP over IPv4 or IPv6, directly or through a relay.

Binary, as it stands in announcements and on the wire:

    kind u8 | IP (4 or 16 bytes) | port u16 | relay's public key (32 bytes, only in kinds 0x84 and 0x86)

    kind   0x04 IPv4, 0x06 IPv6; with 0x80 the address is that of a relay which has a link to the peer

Text: libp2p multiaddrs (https://multiformats.io/multiaddr/), `/ip4/192.0.2.1/tcp/31330` and
`/ip4/192.0.2.1/tcp/31330/p2p/12D3…/p2p-circuit`.
"""

import ipaddress
from dataclasses import dataclass

from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import IdentityError, MalformedError
from nectar_protocol.identity import PUBLIC_KEY_SIZE, PublicKey, parse_peer_id, peer_id

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

RELAYED = 0x80
MAX_ADDRESSES = 8
MAX_TEXT = 256


@dataclass(frozen=True)
class Address:
    """One way to reach a peer; `relay` is the public key of the peer that listens there instead, if any."""

    ip: IPAddress
    port: int
    relay: PublicKey | None = None

    def __post_init__(self) -> None:
        if not 0 < self.port < 1 << 16:
            raise MalformedError(f"port {self.port} cannot be dialled")
        if isinstance(self.ip, ipaddress.IPv6Address) and (self.ip.ipv4_mapped or self.ip.scope_id):
            raise MalformedError(f"{self.ip} is IPv4 written as IPv6, or means nothing on another machine")

    def pack(self) -> bytes:
        kind = self.ip.version | (RELAYED if self.relay else 0)
        return bytes([kind]) + self.ip.packed + uint(self.port, 2, "port") + (self.relay or b"")

    @classmethod
    def read(cls, reader: Reader) -> "Address":
        """Read one binary address. Raises MalformedError."""
        kind = reader.uint(1)
        match kind & ~RELAYED:
            case 4:
                ip: IPAddress = ipaddress.IPv4Address(reader.take(4))
            case 6:
                ip = ipaddress.IPv6Address(reader.take(16))
            case _:
                raise MalformedError(f"address kind {kind:#x} is unknown")
        port = reader.uint(2)
        return cls(ip, port, PublicKey(reader.take(PUBLIC_KEY_SIZE)) if kind & RELAYED else None)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read a multiaddr of the two forms above. Raises MalformedError."""
        address, target = split_multiaddr(text)
        if target is not None:
            raise MalformedError(f"{text[:128]!r} names a peer; only its address is wanted here")
        return address

    def __str__(self) -> str:
        base = f"/ip{self.ip.version}/{self.ip}/tcp/{self.port}"
        return f"{base}/p2p/{peer_id(self.relay)}/p2p-circuit" if self.relay else base


def pack_addresses(addresses: tuple[Address, ...]) -> bytes:
    """u8 count, then the addresses. Raises MalformedError for more than eight."""
    if len(addresses) > MAX_ADDRESSES:
        raise MalformedError(f"{len(addresses)} addresses; at most {MAX_ADDRESSES} are sent")
    return bytes([len(addresses)]) + b"".join(address.pack() for address in addresses)


def read_addresses(reader: Reader) -> tuple[Address, ...]:
    """Raises MalformedError."""
    count = reader.uint(1)
    if count > MAX_ADDRESSES:
        raise MalformedError(f"{count} addresses; at most {MAX_ADDRESSES} are read")
    return tuple(Address.read(reader) for _ in range(count))


def split_multiaddr(text: str) -> tuple[Address, PublicKey | None]:
    """(address, the peer it leads to if the text names one). Raises MalformedError with the forms that are read."""
    if len(text) > MAX_TEXT:
        raise MalformedError(f"an address of {len(text)} characters; at most {MAX_TEXT} are read")
    parts = text.split("/")
    try:
        match parts:
            case ["", ("ip4" | "ip6") as family, host, "tcp", port, *tail]:
                ip = ipaddress.ip_address(host)
                if f"ip{ip.version}" != family:
                    raise ValueError(f"{host[:64]!r} is not an address of /{family}")
                if str(int(port)) != port:
                    raise ValueError("a port is a decimal number from 1 to 65535")
                relay, target = _split_tail(tail)
                return Address(ip, int(port), relay), target
    except ValueError as error:
        raise MalformedError(f"{text[:128]!r} is not a usable address: {error}") from error
    raise MalformedError(
        f"{text[:128]!r} is not a usable address; write /ip4/HOST/tcp/PORT/p2p/PEER or /ip6/…, as a node prints it"
    )


def _split_tail(tail: list[str]) -> tuple[PublicKey | None, PublicKey | None]:
    """(relay, target) from what follows the port."""
    match tail:
        case []:
            return None, None
        case ["p2p", target]:
            return None, parse_peer_id(target)
        case ["p2p", relay, "p2p-circuit"]:
            return parse_peer_id(relay), None
        case ["p2p", relay, "p2p-circuit", "p2p", target]:
            return parse_peer_id(relay), parse_peer_id(target)
    raise IdentityError(f"'/{'/'.join(tail)[:96]}' after the port is not understood")
