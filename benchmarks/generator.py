"""Where a measured ledger's load comes from: a process of its own that signs beforehand, and then only sends."""

import base64
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from nectar_ledger.store.sequencer import unix_ms
from nectar_protocol.hold import Hold, SignedHold

from benchmarks.people import People, sign_receipt
from benchmarks.requests import Request, Sent, send


class LoadError(Exception):
    """The ledger refused what it should have taken."""


@dataclass(frozen=True)
class Settings:
    url: str
    ledger: bytes
    people: People


class Generator:
    """Signs and sends for all of a ledger's people."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._people = settings.people
        self._holds: list[Hold] = []
        self._seqs = itertools.count(1)
        self._ready: list[Request] = []

    def open_holds(self, connections: int) -> Sent:
        """All of them; they are paid, and each has a line for each node."""
        openings = [self._people.opening(self._settings.ledger, hold, unix_ms()) for hold in range(self._people.holds)]
        requests = [Request("/v1/commands", signed.pack()) for signed in openings]
        opened: dict[bytes, Hold] = {}

        def keep(request: Request, answer: Any) -> None:
            hold = SignedHold.unpack(base64.b64decode(answer["hold"])).hold
            opened[hold.id] = hold

        sent = _whole(send(self._settings.url, requests, connections, on_answer=keep), len(requests))
        self._holds = [opened[signed.command.body_hash] for signed in openings]
        return sent

    def sign(self, batch: int, rounds: int) -> int:
        """Have receipts ready: `rounds` newer ones for every line, in batches of one node each. How many they are."""
        for seq in itertools.islice(self._seqs, rounds):
            for first in range(0, len(self._holds), batch):
                for number in range(self._people.nodes):
                    self._ready.append(self._batch(number, seq, range(first, min(first + batch, len(self._holds)))))
        return rounds * self._people.nodes * len(self._holds)

    def _batch(self, number: int, seq: int, holds: range) -> Request:
        node = self._people.node(number)
        receipts = (sign_receipt(self._holds[hold], node, self._people.session(hold), seq) for hold in holds)
        return Request("/v1/receipts", b"".join(receipts), node, address_of(number))

    def send(self, connections: int, batches_per_s: float | None = None) -> Sent:
        """Send what is ready. Raises LoadError unless each receipt is settled."""
        requests, self._ready = self._ready, []
        unsettled: list[Any] = []

        def check(request: Request, answer: Any) -> None:
            unsettled.extend(result for result in answer["results"] if result["status"] != "settled")

        sent = send(self._settings.url, requests, connections, batches_per_s, check)
        if unsettled:
            raise LoadError(f"{len(unsettled)} receipts were not settled, such as {unsettled[0]}")
        return _whole(sent, len(requests))


def address_of(node: int) -> str:
    """Each node has an address of its own, as the ledger's limits expect; Linux has all of 127.0.0.0/8."""
    return f"127.0.0.{2 + node}" if sys.platform == "linux" else "127.0.0.1"


def _whole(sent: Sent, count: int) -> Sent:
    if len(sent.latencies_s) != count:
        raise LoadError(f"{len(sent.latencies_s)} of {count} requests were answered: {sent.failures[:3]}")
    return sent


class GeneratorProcess:
    """A `Generator` elsewhere: its methods by name."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe

    def open_holds(self, connections: int) -> Sent:
        return self._ask("open_holds", connections)

    def sign(self, batch: int, rounds: int) -> int:
        return self._ask("sign", batch, rounds)

    def send(self, connections: int, batches_per_s: float | None = None) -> Sent:
        return self._ask("send", connections, batches_per_s)

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def generating(settings: Settings) -> Iterator[GeneratorProcess]:
    """A generator's process, until the end of the block."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
    process.start()
    theirs.close()  # so that ours ends where the process does
    try:
        yield GeneratorProcess(ours)
    finally:
        process.kill()
        process.join()


def _serve(pipe: "Connection[Any, Any]", settings: Settings) -> None:
    generator = Generator(settings)
    while True:
        method, arguments = pipe.recv()
        try:
            pipe.send(getattr(generator, method)(*arguments))
        except Exception as error:
            pipe.send(error)
