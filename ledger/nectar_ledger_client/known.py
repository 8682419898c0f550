"""What makes a ledger the one that is meant: its first entry, whose hash is its ID, has its name and its keys."""

from dataclasses import dataclass
from typing import Self

from nectar_protocol.entries import Genesis
from nectar_protocol.entry import entry_hash, parse_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PublicKey
from nectar_protocol.note import Kind, NoteKey

from nectar_ledger_client.errors import UntrustedError


@dataclass(frozen=True)
class KnownLedger:
    """A ledger's ID, its name, the key that signs its holds and the one that signs its log."""

    ledger: bytes
    network: str
    holds: PublicKey
    log: NoteKey

    @classmethod
    def of(cls, genesis: bytes, ledger: bytes | None = None) -> Self:
        """Read a first entry. Raises UntrustedError for what is none, or not that of the ledger with this ID."""
        found = entry_hash(genesis)
        if ledger is not None and found != ledger:
            raise UntrustedError(f"this is the ledger {found.hex()}, not {ledger.hex()}: check the address and the ID")
        try:
            body = parse_entry(genesis).body
            if not isinstance(body, Genesis):
                raise UntrustedError("the ledger's first entry is not the beginning of one: ask its operator")
            return cls(found, body.network, body.holds, NoteKey(body.network, Kind.NOTE, body.log))
        except ProtocolError as error:
            raise UntrustedError(f"the ledger's first entry cannot be read ({error}): ask its operator") from error
