"""A hold is kept as long and as large as its session needs it, by a ledger that is really served."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from nectar import renewal as renewal_module
from nectar.book import Book
from nectar.caps import Extent
from nectar.ledger import Ledger
from nectar.line import Line
from nectar.purse import Bought, Order, Part, Purse
from nectar.renewal import Renewal
from nectar_protocol.announcement import Profile
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_protocol.money import MAX_UCR
from nectar_protocol.tally import Tally, Terms

from tests.ledger.api.served import NODE, LiveClock, Served, serve, usual
from tests.ledger.world import POLICY, World, person

LIFE_MS = 3_000
OTHER, UNBOUND = person("another node"), person("a stranger")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    world = World(replace(POLICY, hold_life_ms=LIFE_MS), start_ms=time.time_ns() // 1_000_000)
    clock = LiveClock(world.start_ms)
    orders = [*usual(world), world.bind(OTHER, person("owner"))]
    ledger, stop = serve(tmp_path_factory.mktemp("ledger"), world, orders=orders, clock=clock)
    clock.is_live = True
    yield ledger
    stop()


class Holder:
    """Hears what becomes of the hold."""

    def __init__(self, book: Book) -> None:
        self.book, self.lineless, self.worn = book, list[PeerID](), list[str]()
        self.revised = asyncio.Event()

    def on_revised(self, bought: Bought) -> None:
        self.book.hold(bought)
        for line in self.book.lines.values():
            in_hold = bought.hold.hold.line(line.terms.server)
            line.cap_units = in_hold.cap_units if in_hold else None
        self.revised.set()

    def on_lineless(self, peer: PeerID, reason: str) -> None:
        self.book.lines.pop(peer)
        self.lineless.append(peer)
        self.revised.set()

    def on_worn(self, reason: str) -> None:
        self.worn.append(reason)


class Stand:
    """A session's hold on one node, and who renews it."""

    def __init__(self, purse: Purse, model: ModelID) -> None:
        self.purse, self.key, self.model = purse, Identity.generate(), model
        self.book = Book()
        self.holder = Holder(self.book)
        self.renewal = Renewal(self.book, purse, self.key, self.holder)
        self.renewal.extent = Extent(1, 50, 10)

    async def open(self) -> None:
        order = Order(self.key, self.model, self.renewal.extent, 0, MAX_UCR)
        self.book.hold(await self.purse.open(order, [Part(NODE.public, 0, 4, Profile.F32)]))
        self.renewal.watch()

    def add(self, node: Identity) -> Line:
        """A node that was opened without a line."""
        assert self.book.bought is not None
        hold, part = self.book.bought.hold.hold, Part(node.public, 4, 8, Profile.F32)
        terms = Terms(hold.id, node.public, self.key.public, 4, 8, Profile.F32, 0, bytes(32))
        meter = self.book.bought.meter(part)
        line = Line(peer=node.peer_id, number=1, meter=meter, tally=Tally.begin(terms, 50))
        self.book.open(line)
        return line

    @property
    def expires_ms(self) -> int:
        assert self.book.bought is not None
        return self.book.bought.hold.hold.expires_ms


@pytest.fixture
async def stand(served: Served, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    monkeypatch.setattr(renewal_module, "CALM_S", 0.05)
    ledger = Ledger(served.url)
    stand = Stand(Purse(ledger), ModelID(served.world.model.model))
    await stand.open()
    yield stand
    stand.renewal.close()
    await ledger.aclose()


async def test_a_hold_in_use_is_extended_before_it_expires(stand: Stand) -> None:
    first_ms = stand.expires_ms
    for _ in range(2):
        before_ms = stand.expires_ms
        stand.holder.revised.clear()
        await stand.holder.revised.wait()
        assert stand.expires_ms > before_ms > stand.purse.ledger.now_ms
    assert stand.expires_ms > first_ms + LIFE_MS / 3


async def test_a_hold_that_nobody_uses_is_left_to_expire(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal_module, "IDLE_S", 0.0)
    await asyncio.sleep(LIFE_MS / 1000)
    assert not stand.holder.revised.is_set()
    monkeypatch.setattr(renewal_module, "IDLE_S", 900.0)
    stand.renewal.look()
    async with asyncio.timeout(30):
        while not stand.holder.worn:
            await asyncio.sleep(0.01)


async def test_a_node_that_comes_later_gets_a_line(stand: Stand) -> None:
    line = stand.add(OTHER)
    stand.renewal.look()
    await stand.holder.revised.wait()
    assert line.cap_units is not None
    assert stand.holder.lineless == []


async def test_a_node_that_can_have_no_line_is_told_of(stand: Stand) -> None:
    stand.add(UNBOUND)
    stand.renewal.look()
    async with asyncio.timeout(30):
        while not stand.holder.lineless:
            await asyncio.sleep(0.01)
    assert stand.holder.lineless == [UNBOUND.peer_id]
    assert stand.renewal.short is None
