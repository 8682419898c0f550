"""`LedgerClient` for an event loop: the same calls, the same answers, the same errors."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from nectar_protocol.announcement import Announcement
from nectar_protocol.command import SignedCommand
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.logproof import LogProof
from nectar_protocol.merkle import Hash
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.note import Note
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import SignedReceipt

from nectar_ledger_client import calls, logcalls
from nectar_ledger_client.accounts import Balance, Purse, PurseLine, StatementLine
from nectar_ledger_client.answers import CommandAnswer, Epoch, LedgerInfo, LoggedEntry, ReceiptAnswer, SupplyNow
from nectar_ledger_client.call import Call, Flow
from nectar_ledger_client.errors import BusyError, LedgerClientError, UnreachableError
from nectar_ledger_client.events import SILENCE_S, Event, EventParser, listen
from nectar_ledger_client.exchange import (
    BodyReader,
    Reply,
    base_url,
    build_request,
    is_stream,
    judge,
    unreachable,
)
from nectar_ledger_client.known import KnownLedger
from nectar_ledger_client.page import HOLDS_AT_ONCE, Cursor, Page
from nectar_ledger_client.promise import hold_check, promises_hold
from nectar_ledger_client.retries import DEFAULT_RETRIES, Retries
from nectar_ledger_client.work import Batch, HoldView, JudgedBatch, NodeView, Settlement

T = TypeVar("T")


class AsyncLedgerClient:
    """Asks a ledger, for one event loop; close it with `aclose`, or use it in an `async with`.

    Arguments and methods are those of `LedgerClient`; lists and events are asynchronous iterators.
    """

    def __init__(
        self,
        address: str,
        ledger: bytes | KnownLedger | None = None,
        *,
        timeout_s: float = 30.0,
        retries: Retries = DEFAULT_RETRIES,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._base, self._retries, self._timeout_s, self._clock_s = base_url(address), retries, timeout_s, clock_s
        self._known = ledger if isinstance(ledger, KnownLedger) else None
        self._id = ledger if isinstance(ledger, bytes) else None
        self._http = httpx.AsyncClient(timeout=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """The answer to one call, which is sent again while that may help."""
        failures = 0
        while True:
            try:
                return judge(call, await self._exchange(call))
            except (UnreachableError, BusyError) as error:
                failures += 1
                pause_s = self._retries.pause_s(failures, error)
            await asyncio.sleep(pause_s)

    async def run(self, flow: Flow[T]) -> T:
        """What a conversation comes to."""
        try:
            call = next(flow)
            while True:
                try:
                    answer = await self.call(call)
                except LedgerClientError as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def pages(self, call_of: Callable[[Cursor], Call[Page[T]]], start: Cursor) -> AsyncIterator[T]:
        """The items of a list from `start` on, fetched as they are needed."""
        cursor: Cursor | None = start
        while cursor is not None:
            page = await self.call(call_of(cursor))
            for item in page.items:
                yield item
            cursor = cursor.following(page)

    async def known(self) -> KnownLedger:
        if self._known is None:
            genesis = await self.call(calls.entry(0))
            self._known = KnownLedger.of(genesis.data, self._id)
        return self._known

    async def ledger(self) -> LedgerInfo:
        return await self.call(calls.ledger())

    async def send_command(self, signed: SignedCommand, extends: Hold | None = None) -> CommandAnswer:
        holds = (await self.known()).holds if promises_hold(signed) else None
        return await self.call(calls.command(signed, hold_check(signed, holds, extends)))

    async def send_receipts(self, sender: Identity, receipts: Sequence[SignedReceipt]) -> list[ReceiptAnswer]:
        starts = range(0, len(receipts), calls.MAX_RECEIPTS)
        parts = (calls.receipts(sender, receipts[start : start + calls.MAX_RECEIPTS]) for start in starts)
        return [answer for part in parts for answer in await self.call(part)]

    async def balance(self, account: PublicKey) -> Balance:
        return await self.call(calls.balance(account))

    def statement(self, account: PublicKey, after: int | None = None) -> AsyncIterator[StatementLine]:
        return self.pages(lambda cursor: calls.statement(account, cursor), Cursor.start(after))

    def nodes_of(self, account: PublicKey, after: int | None = None) -> AsyncIterator[NodeView]:
        return self.pages(lambda cursor: calls.nodes_of(account, cursor), Cursor.start(after))

    async def purse(self, owner: Identity) -> Purse:
        return await self.call(calls.purse(owner))

    def purse_statement(self, owner: Identity, after: int | None = None) -> AsyncIterator[PurseLine]:
        return self.pages(lambda cursor: calls.purse_statement(owner, cursor), Cursor.start(after))

    def holds_of(self, owner: Identity, after: int | None = None) -> AsyncIterator[HoldView]:
        return self.pages(lambda cursor: calls.holds_of(owner, cursor), Cursor.start(after, HOLDS_AT_ONCE))

    async def hold(self, id: bytes) -> HoldView:
        return await self.call(calls.hold(id))

    def nodes(self, after: int | None = None) -> AsyncIterator[NodeView]:
        return self.pages(calls.nodes, Cursor.start(after))

    async def node(self, key: PublicKey) -> NodeView:
        return await self.call(calls.node(key))

    def batches_of(self, node: PublicKey, after: int | None = None) -> AsyncIterator[Batch]:
        return self.pages(lambda cursor: calls.batches_of(node, cursor), Cursor.start(after))

    async def batch(self, id: int) -> JudgedBatch:
        return await self.call(calls.batch(id))

    def settlements(self, batch: int, after: int | None = None) -> AsyncIterator[Settlement]:
        return self.pages(lambda cursor: calls.settlements(batch, cursor), Cursor.start(after))

    def settlements_of_hold(self, hold: bytes, after: int | None = None) -> AsyncIterator[Settlement]:
        return self.pages(lambda cursor: calls.settlements_of_hold(hold, cursor), Cursor.start(after))

    async def supply(self) -> SupplyNow:
        return await self.call(calls.supply())

    def epochs(self, after: int | None = None) -> AsyncIterator[Epoch]:
        return self.pages(calls.epochs, Cursor.start(after))

    async def entry(self, index: int) -> LoggedEntry:
        return await self.call(calls.entry(index))

    async def policy(self, id: bytes | None = None) -> Policy:
        return await self.call(calls.policy(id))

    def policies(self, after: int | None = None) -> AsyncIterator[Policy]:
        return self.pages(calls.policies, Cursor.start(after))

    def models(self, after: int | None = None) -> AsyncIterator[ModelEntry]:
        return self.pages(calls.models, Cursor.start(after))

    async def model(self, model: bytes, version: int | None = None) -> ModelEntry:
        return await self.call(calls.model(model, version))

    async def heartbeat(self, announcement: Announcement) -> None:
        await self.call(calls.heartbeat(announcement))

    def directory(self, model: bytes) -> AsyncIterator[Announcement]:
        return self.pages(lambda cursor: calls.directory(model, cursor), Cursor(ascending=True))

    async def put_evidence(self, auditor: Identity, data: bytes) -> bytes:
        return await self.call(calls.put_evidence(auditor, data))

    async def evidence(self, sha256: bytes) -> bytes:
        return await self.call(calls.evidence(sha256))

    async def checkpoint(self, witnesses: int = 0) -> Note:
        return await self.call(logcalls.checkpoint(witnesses))

    async def proof(self, index: int, witnesses: int = 0) -> LogProof:
        return await self.call(logcalls.proof(index, witnesses))

    async def consistency(self, old: int, new: int) -> list[Hash]:
        return await self.call(logcalls.consistency(old, new))

    async def events(self, after: int | None = None) -> AsyncGenerator[Event, None]:
        """What happens from now on, or behind entry `after`, without an end: where the link breaks, it goes on."""
        parser, failures = EventParser(after), 0
        error: LedgerClientError
        while True:
            try:
                async with aclosing(self._listen(parser)) as events:
                    async for event in events:
                        failures = 0
                        yield event
                failures, error = 0, UnreachableError("the ledger has ended its events; ask again")
            except (UnreachableError, BusyError) as failed:
                error = failed
            failures += 1
            await asyncio.sleep(self._retries.pause_s(failures, error))

    async def _exchange(self, call: Call[Any]) -> Reply:
        """Send one request. Raises UnreachableError, AnswerError."""
        request = build_request(self._base, call, int(self._clock_s()))
        try:
            async with (
                asyncio.timeout(self._timeout_s + call.transfer_s),
                aclosing(await self._http.send(request, stream=True)) as response,
            ):
                return await _read(call, response)
        except (httpx.TransportError, TimeoutError) as error:
            raise unreachable(self._base, error) from error

    async def _listen(self, parser: EventParser) -> AsyncGenerator[Event, None]:
        """Events until the stream ends. Raises UnreachableError, and what else the ledger answers instead of them."""
        parser.reconnected()
        call = listen(parser.last)
        request = build_request(self._base, call, int(self._clock_s()))
        request.extensions["timeout"] = httpx.Timeout(self._timeout_s, read=SILENCE_S).as_dict()
        try:
            async with aclosing(await self._http.send(request, stream=True)) as response:
                if not is_stream(response):
                    async with asyncio.timeout(self._timeout_s):
                        judge(call, await _read(call, response))
                async for chunk in response.aiter_raw():
                    for event in parser.feed(chunk):
                        yield event
        except (httpx.TransportError, TimeoutError) as error:
            raise unreachable(self._base, error) from error


async def _read(call: Call[Any], response: httpx.Response) -> Reply:
    body = BodyReader(call, response)
    async for chunk in response.aiter_raw():
        body.add(chunk)
    return body.reply()
