"""A ledger that is really served, on loopback, for tests of its API."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import httpx
from nectar_ledger.api.app import create_app
from nectar_ledger.api.limits import Limits, Rate
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.loading import load
from nectar_ledger.core.machine import Answer
from nectar_ledger.core.orders import Begin, Obey, Order, Settle
from nectar_ledger.log.published import Published
from nectar_ledger.log.signer import Signer
from nectar_ledger.server import Server, listen
from nectar_ledger.service import Service
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.sequencer import Sequencer
from nectar_ledger.store.tables import TABLES
from nectar_ledger.store.versions import migrate
from nectar_ledger_client.signing import signature_headers
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.identity import Identity

from tests.ledger.world import ORIGIN, START_MS, World, person

PLENTY = Rate(1e9, 10**9)
# So that only the tests of limits meet one.
NO_LIMITS = Limits(
    requests_per_address=PLENTY,
    verifications_per_address=PLENTY,
    verifications_per_key=PLENTY,
    commands_per_key=PLENTY,
    strangers_per_address=PLENTY,
)
LIFE_MS = 600_000
OWNER, NODE, ALICE = person("owner"), person("node"), person("alice")


class Clock:
    """The ledger's, and that of who signs requests in tests."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class LiveClock(Clock):
    """The real one; but it stands until `is_live`, since a ledger's ID has its first moment in it."""

    is_live = False

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 if self.is_live else self.now_ms


@dataclass
class Served:
    """A ledger of `world` at `url`. `http` is a client without any knowledge of it."""

    world: World
    clock: Clock
    service: Service
    url: str
    http: httpx.Client

    def record(self, *orders: Order) -> list[Answer]:
        """Past the API. Each must be accepted."""
        outcomes = self.service.submit(orders).result(30)
        assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
        return [outcome for outcome in outcomes if isinstance(outcome, Answer)]

    def command(self, order: Obey) -> httpx.Response:
        return self.http.post("/v1/commands", content=order.signed.pack())

    def open(self, order: Obey) -> Hold:
        """Open or extend a hold, past the API."""
        (answer,) = self.record(order)
        return SignedHold.unpack(answer.response).hold

    def hold(self, session: Identity, caps: dict[Identity, int] | None = None, payer: Identity | None = None) -> Hold:
        """A new one, of the session itself or of somebody who pays."""
        caps = {NODE: self.world.policy.free_cap_units} if caps is None else caps
        return self.open(self.world.open_hold(payer or session, session, caps, self.clock() + LIFE_MS))

    def metric(self, line: str) -> float:
        """The value behind a name, and labels if it has some, at `/metrics`."""
        lines = dict(text.rsplit(" ", 1) for text in self.http.get("/metrics").text.splitlines() if text[0] != "#")
        return float(lines[line])

    def signed(self, identity: Identity, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """The headers of a signed request."""
        return signature_headers(identity, method, f"{self.url}{path}", body, self.clock() // 1000)

    def get(self, path: str, identity: Identity) -> httpx.Response:
        """Signed."""
        return self.http.get(path, headers=self.signed(identity, "GET", path))

    def post(self, path: str, identity: Identity, body: bytes) -> httpx.Response:
        """Signed."""
        return self.http.post(path, content=body, headers=self.signed(identity, "POST", path, body))

    def receipts(self, sender: Identity, *receipts: Settle) -> list[dict[str, Any]]:
        """What became of a batch that must be taken."""
        answer = self.post("/v1/receipts", sender, b"".join(settle.receipt.pack() for settle in receipts))
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results


def open_service(folder: Path, world: World, clock: Clock, beat_s: float = 0.05) -> Service:
    """The ledger in a folder, on SQLite; a new one if there is none."""
    database = open_database(f"sqlite:///{folder / 'ledger.db'}")
    migrate(database)
    sequencer: Sequencer[Order] = Sequencer(
        database, TABLES, lambda read, size, time_ms: Ledger(load(read, size, time_ms), world.keys.holds), clock
    )
    sequencer.submit([Begin(world.genesis)]).result()
    signer = Signer(database, ORIGIN, world.keys.log, Published(folder / "published"), clock)
    return Service(database, sequencer, signer, folder / "evidence", clock, beat_s)


def serve(
    folder: Path,
    world: World,
    limits: Limits = NO_LIMITS,
    orders: Sequence[Order] = (),
    public_url: str | None = None,
    beat_s: float = 0.05,
    clock: Clock | None = None,
) -> tuple[Served, Callable[[], None]]:
    """A new ledger, with `orders` recorded, and how to stop it."""
    clock = clock or Clock()
    service = open_service(folder, world, clock, beat_s)
    started: Queue[str] = Queue()
    server = Server(create_app(service, limits, public_url), listen("127.0.0.1", 0), started.put)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    base = started.get(timeout=30)
    served = Served(world, clock, service, base, httpx.Client(base_url=base, timeout=30))

    def stop() -> None:
        served.http.close()
        server.should_exit = True
        thread.join(60)
        service.database.writing.dispose()
        assert not thread.is_alive()

    if orders:
        served.record(*orders)
    return served, stop


def usual(world: World) -> list[Order]:
    """A model, a node of an owner, and Alice with a purse."""
    return [
        world.publish_model(), world.bind(NODE, OWNER), world.grant(ALICE, 10**12), world.fund(ALICE, 10**11),
    ]  # fmt: skip
