"""The log of a ledger, followed by a client: what is in it for good, and that it only grows."""

from collections.abc import Collection
from pathlib import Path

from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.entries import Settled
from nectar_protocol.note import NoteKey
from nectar_protocol.receipt import SignedReceipt

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.trail import Trail


class LogFollower:
    """Follows the log whose key is `log`, as `Trail` says: its methods are that one's, run by this client."""

    def __init__(
        self, client: LedgerClient, log: NoteKey, path: Path, witnesses: Collection[NoteKey] = (), quorum: int = 0
    ) -> None:
        self._client, self.trail = client, Trail(log, path, witnesses, quorum)

    def advance(self) -> Checkpoint:
        """The newest checkpoint, which continues all that were seen. Raises UntrustedError for a fork."""
        return self._client.run(self.trail.advance())

    def includes(self, index: int, entry: bytes) -> None:
        """Return if `entry` stands at `index` for good. Raises UntrustedError, or NotYetError."""
        self._client.run(self.trail.includes(index, entry))

    def settled(self, receipt: SignedReceipt, index: int) -> Settled:
        """Return if the entry at `index` settles this receipt, or a later one of its line, for good.

        Raises UntrustedError, or NotYetError. Whoever keeps the receipt may delete it when this has returned.
        """
        return self._client.run(self.trail.settled(receipt, index))


class AsyncLogFollower:
    """`LogFollower` for an event loop."""

    def __init__(
        self, client: AsyncLedgerClient, log: NoteKey, path: Path, witnesses: Collection[NoteKey] = (), quorum: int = 0
    ) -> None:
        self._client, self.trail = client, Trail(log, path, witnesses, quorum)

    async def advance(self) -> Checkpoint:
        """As `LogFollower.advance`."""
        return await self._client.run(self.trail.advance())

    async def includes(self, index: int, entry: bytes) -> None:
        """As `LogFollower.includes`."""
        await self._client.run(self.trail.includes(index, entry))

    async def settled(self, receipt: SignedReceipt, index: int) -> Settled:
        """As `LogFollower.settled`."""
        return await self._client.run(self.trail.settled(receipt, index))
