"""A node's dealings with a ledger, from its start to its end: the till, and who goes to the ledger for it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.errors import LedgerClientError
from nectar_ledger_client.retries import NO_RETRIES
from nectar_protocol.announcement import Announcement, Profile
from nectar_protocol.identity import Identity, PublicKey

from nectar_node.background import in_thread
from nectar_node.till.courier import Courier, Rounds
from nectar_node.till.registrar import ROUND_S, Registrar
from nectar_node.till.spool import Spool, spool_path
from nectar_node.till.till import Till

LAST_ROUND_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """Which ledger a node's holds and receipts are of, and who earns: `owner_key` signs for the owner, if at hand."""

    url: str
    owner: PublicKey | None = None
    owner_key: Identity | None = None
    serves_unmetered: bool = True
    round_s: float = ROUND_S
    rounds: Rounds = field(default_factory=Rounds)


class Office:
    """Made by `open`, in the loop that it lives in."""

    def __init__(self, till: Till, client: AsyncLedgerClient, registrar: Registrar, courier: Courier) -> None:
        self.till, self._client, self._registrar, self._courier = till, client, registrar, courier
        self._tasks = [asyncio.create_task(work.run()) for work in (till, registrar, courier)]
        for task in self._tasks:
            task.add_done_callback(_tell_end)

    @classmethod
    async def open(
        cls,
        ledger: Ledger,
        key_file: Path,
        identity: Identity,
        model: bytes,
        profile: Profile,
        last_word: Callable[[], Announcement | None],
        say: Callable[[str], None],
    ) -> "Office":
        """Raises TillError, and LedgerClientError for an address that is none."""
        client = AsyncLedgerClient(ledger.url, retries=NO_RETRIES)
        path = spool_path(key_file)
        spool = await in_thread(lambda: Spool(path))
        till = Till(identity, model, profile, spool, ledger.owner, ledger.serves_unmetered)
        registrar = Registrar(client, till, last_word, say, ledger.owner_key, ledger.round_s)
        courier = Courier(client, till, path.with_suffix(".checkpoint"), ledger.rounds)
        return cls(till, client, registrar, courier)

    async def close(self) -> None:
        """Write what is left, and try to post it once more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(LedgerClientError, TimeoutError):
            async with asyncio.timeout(LAST_ROUND_S):
                await self._registrar.tell()
                await self._courier.round(everything=True)
        await self.till.close()
        await self._client.aclose()


def _tell_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the till has lost a part of itself", exc_info=error)
