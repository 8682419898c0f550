"""What happens, as it is committed: server-sent events, one for each entry of the log.

A listener has its place in the log and nothing else: whoever is slow reads what it has missed from there, and never
holds anybody up. Events are made of entries alone, which are public; sealed parts are not even read.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import (
    BindPayee,
    ChangePayee,
    Dispute,
    FundPurse,
    Grant,
    PublishModel,
    PublishPolicy,
    SetKey,
    WithdrawPurse,
)
from nectar_protocol.entries import (
    BatchClosed,
    Emitted,
    EpochClosed,
    Genesis,
    HoldClosed,
    HoldOpened,
    Resumed,
    Settled,
)
from nectar_protocol.entry import Body, parse_entry
from nectar_protocol.record import MAX_COUNT

from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.fields import name_of
from nectar_ledger.api.limits import Limits, address_of
from nectar_ledger.api.metrics import Metrics
from nectar_ledger.service import Service
from nectar_ledger.store.reading import read_entries

# Many commits a second are one publication.
GATHER_S = 0.05
PAGE = 256
KEPT = 1024
# Who was away for longer reads the log.
MAX_REPLAY = 10_000
RETRY_AFTER_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """`kind` is the entry's; `data` is small."""

    index: int
    kind: str
    data: dict[str, Any]


class Feed:
    """For one event loop, which runs `run`. The newest events are kept for all listeners together."""

    def __init__(self, service: Service, limits: Limits, metrics: Metrics) -> None:
        self._service, self._limits, self._metrics = service, limits, metrics
        self._size = service.durable_size
        self._kept: list[LogEvent] = []
        self._grown = asyncio.Event()
        self._closed = False
        self._listeners: Counter[str] = Counter()

    async def run(self) -> None:
        """Publish what is committed, until it is cancelled."""
        loop, recorded = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            # The sequencer may outlive the loop by a moment.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(recorded.set)

        self._service.watch(wake)
        try:
            while True:
                await recorded.wait()
                recorded.clear()
                try:
                    await self._publish()
                except Exception:
                    logger.exception("events could not be published; they are with the next ones")
                await asyncio.sleep(GATHER_S)
        finally:
            self._service.unwatch(wake)

    async def _publish(self) -> None:
        while (size := self._service.durable_size) > self._size:
            if not self._listeners:
                self._kept, self._size = [], size
                return
            page = await asyncio.to_thread(self._read, self._size, min(size, self._size + PAGE))
            self._kept = [*self._kept, *page][-KEPT:]
            self._size += len(page)
            self._wake_listeners()

    def _wake_listeners(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    @contextmanager
    def seat(self, address: str) -> Iterator[None]:
        """A listener's. Raises ApiError if there are too many, in all or from this address."""
        limits = self._limits
        if self._listeners.total() >= limits.listeners or self._listeners[address] >= limits.listeners_per_address:
            raise ApiError(Problem.FULL, "too many listen already: try again later", RETRY_AFTER_S)
        self._listeners[address] += 1
        self._metrics.listeners.inc()
        try:
            yield
        finally:
            self._metrics.listeners.dec()
            self._listeners[address] -= 1
            if not self._listeners[address]:
                del self._listeners[address]

    async def follow(self, after: int | None) -> AsyncIterator[LogEvent]:
        """All that follows an entry, within reason; what comes from now on where `after` is None. Ends at `close`."""
        size = self._service.durable_size
        position = size if after is None else min(max(after + 1, size - MAX_REPLAY), size)
        while not self._closed:
            grown = self._grown
            if position >= self._size:
                await grown.wait()
                continue
            begin = self._size - len(self._kept)
            if position < begin:
                page = await asyncio.to_thread(self._read, position, min(begin, position + PAGE))
            else:
                page = self._kept[position - begin :]
            for event in page:
                yield event
            position += len(page)

    def close(self) -> None:
        """Send the listeners home."""
        self._closed = True
        self._wake_listeners()

    def _read(self, start: int, stop: int) -> list[LogEvent]:
        with self._service.database.reading.begin() as connection:
            entries = read_entries(connection, start, stop)
        return [event_of(index, entry) for index, entry in enumerate(entries, start)]


def event_of(index: int, entry: bytes) -> LogEvent:
    """What there is to say of an entry."""
    parsed = parse_entry(entry)
    return LogEvent(index, name_of(parsed.kind), {"index": index, "time_ms": parsed.time_ms} | _words(parsed.body))


def _words(body: Body) -> dict[str, Any]:
    match body:
        case Settled(_, _, paid_ucr, fee_ucr, signed):
            receipt = signed.receipt
            return {
                "hold": receipt.hold.hex(), "node": receipt.server.hex(), "seq": receipt.seq, "units": receipt.units,
                "final": receipt.final, "paid_ucr": str(paid_ucr), "fee_ucr": str(fee_ucr),
            }  # fmt: skip
        case HoldOpened(promised):
            hold = promised.hold
            return {
                "hold": hold.id.hex(), "model": hold.model.hex(), "weight": hold.weight, "revision": hold.revision,
                "nodes": len(hold.lines),
            }  # fmt: skip
        case HoldClosed(hold, _, released_ucr, reason, whole):
            words = {"hold": hold.hex(), "released_ucr": str(released_ucr)}
            return words | {"reason": name_of(reason), "whole": whole}
        case BatchClosed(account, outcome, amount_ucr):
            return {"batch": account, "outcome": name_of(outcome), "amount_ucr": str(amount_ucr)}
        case Emitted(epoch, _, shares):
            return {"epoch": epoch, "amount_ucr": str(sum(share.amount_ucr for share in shares))}
        case EpochClosed():
            return {"epoch": body.number, "supply_ucr": str(body.emitted_ucr - body.burned_ucr)}
        case Resumed(down_from_ms):
            return {"down_from_ms": down_from_ms}
        case Genesis():
            return {"network": body.network}
        case SignedCommand(command):
            return {"command": command.NAME} | _command_words(command)
    return {}


def _command_words(command: Command) -> dict[str, Any]:
    match command:
        case BindPayee(node=node, payee=payee) | ChangePayee(node=node, successor=payee):
            return {"node": node.hex(), "payee": payee.hex()}
        case FundPurse() | WithdrawPurse() | Grant():
            return {"account": command.account.hex(), "amount_ucr": str(command.amount_ucr)}
        case SetKey():
            return {"key": command.key.hex(), "purpose": name_of(command.purpose), "state": name_of(command.state)}
        case PublishPolicy():
            return {"policy": command.policy.id.hex(), "version": command.policy.version}
        case PublishModel():
            return {"model": command.entry.model.hex(), "version": command.entry.version}
        case Dispute():
            return {"hold": command.hold.hex(), "node": command.node.hex()}
    return {}


router = APIRouter(tags=["events"])


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def _seated(request: Request, feed: Annotated[Feed, Depends(_feed)]) -> AsyncIterator[Feed]:
    with feed.seat(address_of(request)):
        yield feed


@router.get("/v1/events", response_class=EventSourceResponse, responses=refusals(Problem.FULL))
async def get_events(
    feed: Annotated[Feed, Depends(_seated)],
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_COUNT)] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Entries as they are committed; with Last-Event-ID, an entry's index, those after it first."""
    async for event in feed.follow(last_event_id):
        yield ServerSentEvent(id=str(event.index), event=event.kind, data=event.data)
