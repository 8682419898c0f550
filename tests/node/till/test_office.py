"""A node's dealings with a ledger from start to end, with the real clock: what it earned is posted when it leaves."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.errors import LedgerClientError
from nectar_node.till.courier import Rounds
from nectar_node.till.office import Ledger, Office
from nectar_node.till.spool import Spool, State, spool_path
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.manifest import ModelID
from nectar_protocol.receipt import SignedReceipt

from tests.ledger.api.served import NODE, OWNER, Clock, Served, serve, usual
from tests.ledger.world import World, person

SLOW = Rounds(every_s=3600.0)  # so that only leaving posts anything
SESSION = person("a session")
HANGS_S = 60.0


@dataclass
class Site:
    served: Served
    stop: Callable[[], None]
    key_file: Path

    async def open(self, url: str | None = None, word: Announcement | None = None) -> Office:
        ledger = Ledger(url or self.served.url, OWNER.public, rounds=SLOW)
        model = self.served.world.model.model
        return await Office.open(ledger, self.key_file, NODE, model, Profile.F32, lambda: word, print)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    now_ms = time.time_ns() // 1_000_000
    world = World(start_ms=now_ms)
    ledger, stop = serve(tmp_path, world, orders=usual(world), clock=Clock(now_ms))
    site = Site(ledger, cache(stop), tmp_path / "node.key")
    yield site
    site.stop()


async def met(office: Office) -> Office:
    """It has met its ledger."""
    async with asyncio.timeout(HANGS_S):
        while not office.till.ledger:
            await asyncio.sleep(0.01)
    return office


def earn(site: Site, office: Office, final: bool = False) -> SignedReceipt:
    """A receipt of a session, countersigned."""
    world = site.served.world
    hold = site.served.hold(SESSION).signed(world.keys.holds)
    receipt = world.receipt(hold.hold, NODE, SESSION, 1, 10, final).receipt
    office.till.keep(hold, receipt)
    return receipt


def word_of(world: World) -> Announcement:
    now_ms = time.time_ns() // 1_000_000
    model = ModelID(world.model.model)
    return Announcement(
        NODE.public, model, now_ms, now_ms + 75_000, 0, 8, Profile.F32, NodeState.SERVING, 1, 1, ()
    ).signed(NODE)


async def test_whoever_leaves_posts_what_it_has_and_says_a_last_word(site: Site) -> None:
    word = word_of(site.served.world)
    office = await met(await site.open(word=word))
    receipt = earn(site, office)
    await office.close()
    with LedgerClient(site.served.url) as ledger:
        assert ledger.hold(receipt.receipt.hold).lines[0].receipt == receipt
        assert list(ledger.directory(word.model)) == [word]


async def test_whoever_leaves_while_the_ledger_is_down_has_it_all_at_the_next_start(site: Site) -> None:
    office = await met(await site.open())
    receipt = earn(site, office)
    site.stop()
    await office.close()
    again = await site.open()
    assert [kept.receipt for kept in again.till.spool.of(State.KEPT)] == [receipt]
    assert again.till.ledger == site.served.world.ledger  # and takes holds meanwhile
    await again.close()


@pytest.mark.parametrize("final", [False, True])
async def test_receipts_are_on_disk_soon(site: Site, final: bool) -> None:
    office = await met(await site.open())
    receipt = earn(site, office, final)
    async with asyncio.timeout(HANGS_S):
        while True:
            seen = Spool(spool_path(site.key_file))
            kept = [kept.receipt for kept in seen.lines.values()]
            seen.close()
            if kept == [receipt]:
                break
            await asyncio.sleep(0.01)
    await office.close()


async def test_what_is_no_address_is_refused_at_once(site: Site) -> None:
    with pytest.raises(LedgerClientError, match="not a ledger's address"):
        await site.open("ledger.example")


async def test_a_disk_that_cannot_be_written_takes_no_holds_until_it_can(site: Site) -> None:
    office = await met(await site.open())
    blocker = sqlite3.connect(spool_path(site.key_file))
    office.till.spool._database.execute("PRAGMA busy_timeout = 1")
    blocker.execute("BEGIN IMMEDIATE")
    earn(site, office, final=True)
    async with asyncio.timeout(HANGS_S):
        while office.till.ledger:
            await asyncio.sleep(0.01)
    blocker.rollback()
    blocker.close()
    await met(office)
    assert office.till.spool.is_flushed
    await office.close()
