"""Receipts come to the ledger, and are kept until its log shows them for good, however often it is down meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.errors import BusyError, UnreachableError
from nectar_ledger_client.log import LogFollower
from nectar_node.till.courier import Courier, Rounds
from nectar_node.till.spool import Kept, State
from nectar_node.till.till import Till
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SignedReceipt

from tests.ledger.api.served import LIFE_MS, NODE, Served, serve, usual
from tests.ledger.world import START_MS, World, person
from tests.node.till.town import acquainted, client_of, new_till, process

HANGS_S = 60.0
HASTY = Rounds(every_s=0.02, gather_s=0.0, quiet_s=0.0, longest_s=0.1)
SESSIONS = [person(f"session {number}") for number in range(12)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def till(tmp_path: Path, world: World) -> Iterator[Till]:
    till = acquainted(new_till(tmp_path, world), world)
    yield till
    till.spool.close()


@pytest.fixture
def served(tmp_path: Path, world: World) -> Iterator[Served]:
    (tmp_path / "ledger").mkdir()
    ledger, stop = serve(tmp_path / "ledger", world, orders=usual(world))
    yield ledger
    stop()


class Customers:
    """Free sessions of one ledger, each with a hold, and what they sign with the node."""

    def __init__(self, world: World, url: str, sessions: Sequence[Identity] = SESSIONS) -> None:
        self.world, self.seq = world, 0
        with LedgerClient(url, world.ledger, clock_s=lambda: START_MS / 1000) as client:
            self.holds = [self._open(client, session) for session in sessions]
        self.sessions = sessions

    def _open(self, client: LedgerClient, session: Identity) -> SignedHold:
        caps = {NODE: self.world.policy.free_cap_units}
        opened = client.send_command(self.world.open_hold(session, session, caps, START_MS + LIFE_MS).signed).hold
        assert opened is not None
        return opened

    def sign(self, till: Till, final: bool = False) -> list[SignedReceipt]:
        """One more receipt of each."""
        self.seq += 1
        receipts = []
        for session, hold in zip(self.sessions, self.holds, strict=True):
            receipt = self.world.receipt(hold.hold, NODE, session, self.seq, 10 * self.seq, final).receipt
            till.keep(hold, receipt)
            receipts.append(receipt)
        return receipts


@asynccontextmanager
async def courier(till: Till, url: str) -> AsyncIterator[None]:
    """It goes its rounds meanwhile."""
    client = client_of(url)
    courier = Courier(client, till, till.spool.path.with_suffix(".checkpoint"), HASTY)
    task = asyncio.create_task(courier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def until(till: Till, state: State, count: int) -> list[Kept]:
    """So many receipts have come that far."""
    async with asyncio.timeout(HANGS_S):
        while len(found := till.spool.of(state)) < count:
            await asyncio.sleep(0.01)
    return found


def shown(world: World, url: str, kept: Kept, path: Path) -> None:
    """Anybody may see in the log that the receipt has settled."""
    with LedgerClient(url, world.ledger) as client:
        assert kept.entry is not None
        settled = LogFollower(client, client.known().log, path).settled(kept.receipt, kept.entry)
        assert settled.receipt.receipt.seq >= kept.seq


async def test_receipts_are_proved_in_the_log_and_let_go_when_grace_is_over(
    till: Till, served: Served, world: World, tmp_path: Path
) -> None:
    customers = Customers(world, served.url)
    customers.sign(till)
    async with courier(till, served.url):
        await until(till, State.PROVED, len(SESSIONS))
        customers.sign(till, final=True)
        proved = await until(till, State.PROVED, len(SESSIONS))
        while proved[0].seq == 1 or len({kept.seq for kept in proved}) > 1:
            await asyncio.sleep(0.01)
            proved = await until(till, State.PROVED, len(SESSIONS))
    for kept in proved:
        shown(world, served.url, kept, tmp_path / "anybody")
    earned = till.spool.totals()
    till.spool.prune(START_MS + LIFE_MS + world.policy.grace_ms + 1)
    assert not till.spool.lines
    assert till.spool.totals() == earned
    assert earned["lines"] == len(SESSIONS)


async def test_a_ledger_that_is_down_for_a_while_loses_nothing(till: Till, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    usual(world)  # the process has it from a world of its own, which counts commands alike
    with process(folder) as url:
        customers = Customers(world, url)
        async with courier(till, url):
            customers.sign(till)
            await until(till, State.PROVED, len(SESSIONS))
    async with courier(till, url):
        customers.sign(till)
        customers.sign(till, final=True)
        await asyncio.sleep(0.3)  # it is asked in vain
        assert len(till.spool.of(State.KEPT)) == len(SESSIONS)
        with process(folder, int(url.rpartition(":")[2])) as again:
            assert again == url
            proved = await until(till, State.PROVED, len(SESSIONS))
            assert all(kept.receipt.receipt.final for kept in proved)
            for kept in proved:
                shown(world, url, kept, tmp_path / "anybody")


async def test_the_next_process_takes_what_the_last_one_left(
    till: Till, served: Served, world: World, tmp_path: Path
) -> None:
    Customers(world, served.url).sign(till)
    till.spool.close()
    next_one = new_till(tmp_path, world)
    async with courier(next_one, served.url):
        await until(next_one, State.PROVED, len(SESSIONS))
    next_one.spool.close()


async def test_what_was_posted_and_not_noted_is_found_in_the_log(till: Till, served: Served, world: World) -> None:
    receipts = Customers(world, served.url).sign(till)
    async with client_of(served.url) as client:
        await client.send_receipts(NODE, receipts)
    async with courier(till, served.url):
        proved = await until(till, State.PROVED, len(SESSIONS))
    assert {kept.receipt for kept in proved} == set(receipts)


async def test_what_the_ledger_refuses_is_set_aside_with_its_reason_and_the_rest_goes_on(
    till: Till, served: Served, world: World
) -> None:
    customers = Customers(world, served.url)
    good = customers.sign(till)
    stray = replace(customers.holds[0].hold, id=bytes(32))
    receipt = world.receipt(stray, NODE, SESSIONS[0], 1, 1).receipt
    till.keep(stray.signed(world.keys.holds), receipt)
    async with courier(till, served.url):
        (aside,) = await until(till, State.REFUSED, 1)
        await until(till, State.PROVED, len(good))
    assert aside.receipt == receipt
    assert "unknown-hold" in aside.reason


async def test_only_what_is_ripe_is_posted(till: Till, served: Served, world: World) -> None:
    customers = Customers(world, served.url)
    customers.sign(till)
    async with client_of(served.url) as client:
        waits = Courier(client, till, till.spool.path.with_suffix(".checkpoint"))
        await waits.round()
        assert len(till.spool.of(State.KEPT)) == len(SESSIONS)
        customers.sign(till, final=True)
        await waits.round()
        assert not till.spool.of(State.KEPT)


async def test_more_than_a_batch_goes_in_several(
    till: Till, served: Served, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nectar_node.till.courier.MAX_BATCH", 5)
    Customers(world, served.url).sign(till)
    async with courier(till, served.url):
        await until(till, State.PROVED, len(SESSIONS))


def test_waits_grow_with_failures_are_spread_and_respect_what_a_busy_ledger_asks_for(till: Till) -> None:
    rounds = Rounds(longest_s=60.0)
    client: AsyncLedgerClient | None = None
    going = Courier(client, till, Path("unused"), rounds)  # type: ignore[arg-type]  # which nobody asks
    down = UnreachableError("down")
    for failures in range(1, 200):
        waits = {going._pause_s(failures, down) for _ in range(20)}
        most = min(2.0 ** (failures - 1), 60.0)
        assert most / 2 <= min(waits) < max(waits) <= most
    assert going._pause_s(1, BusyError("busy", 17.0)) >= 17.0
