"""A client of one ledger. `AsyncLedgerClient` is the same for an event loop."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
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


class LedgerClient:
    """Asks the ledger at `address` (https://HOST). For any number of threads; close it, or use it in a `with`.

    `ledger` is the ID that it must have, or all that is known of it; without it, whatever ledger is there is believed
    when its keys are first needed. `timeout_s` is for connecting, for each wait and, beside what its bytes may take on
    a slow link, for an answer as a whole. `clock_s` tells Unix time, by which requests are signed. Every method raises
    LedgerClientError.
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
        self._http = httpx.Client(timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """The answer to one call, which is sent again while that may help."""
        failures = 0
        while True:
            try:
                return judge(call, self._exchange(call))
            except (UnreachableError, BusyError) as error:
                failures += 1
                pause_s = self._retries.pause_s(failures, error)
            time.sleep(pause_s)

    def run(self, flow: Flow[T]) -> T:
        """What a conversation comes to."""
        try:
            call = next(flow)
            while True:
                try:
                    answer = self.call(call)
                except LedgerClientError as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def pages(self, call_of: Callable[[Cursor], Call[Page[T]]], start: Cursor) -> Iterator[T]:
        """The items of a list from `start` on, fetched as they are needed."""
        cursor: Cursor | None = start
        while cursor is not None:
            page = self.call(call_of(cursor))
            yield from page.items
            cursor = cursor.following(page)

    def known(self) -> KnownLedger:
        """The ledger's ID and keys, read off its first entry when they are first needed."""
        if self._known is None:
            self._known = KnownLedger.of(self.call(calls.entry(0)).data, self._id)
        return self._known

    def ledger(self) -> LedgerInfo:
        """What the ledger says of itself."""
        return self.call(calls.ledger())

    def send_command(self, signed: SignedCommand, extends: Hold | None = None) -> CommandAnswer:
        """Have a command obeyed; the same may be sent again. A hold that comes back is verified, and is what was asked
        for: to the last field for a revision too, where the hold that it extends is given.
        """
        holds = self.known().holds if promises_hold(signed) else None
        return self.call(calls.command(signed, hold_check(signed, holds, extends)))

    def send_receipts(self, sender: Identity, receipts: Sequence[SignedReceipt]) -> list[ReceiptAnswer]:
        """Settle receipts of the sender's own, as their node or their session; what became of each, in order.

        More than 1,000 go in several calls; where one fails, what the others have settled is settled.
        """
        starts = range(0, len(receipts), calls.MAX_RECEIPTS)
        parts = (calls.receipts(sender, receipts[start : start + calls.MAX_RECEIPTS]) for start in starts)
        return [answer for part in parts for answer in self.call(part)]

    def balance(self, account: PublicKey) -> Balance:
        """An account's public balance."""
        return self.call(calls.balance(account))

    def statement(self, account: PublicKey, after: int | None = None) -> Iterator[StatementLine]:
        """The public lines of an account, from new to old; upwards from behind the line with the ID `after`."""
        return self.pages(lambda cursor: calls.statement(account, cursor), Cursor.start(after))

    def nodes_of(self, account: PublicKey, after: int | None = None) -> Iterator[NodeView]:
        """The nodes whose earnings go to an account."""
        return self.pages(lambda cursor: calls.nodes_of(account, cursor), Cursor.start(after))

    def purse(self, owner: Identity) -> Purse:
        """An account's private balance."""
        return self.call(calls.purse(owner))

    def purse_statement(self, owner: Identity, after: int | None = None) -> Iterator[PurseLine]:
        """The private lines of an account, from new to old; upwards from behind the entry `after`."""
        return self.pages(lambda cursor: calls.purse_statement(owner, cursor), Cursor.start(after))

    def holds_of(self, owner: Identity, after: int | None = None) -> Iterator[HoldView]:
        """The holds that an account's purse has paid for; upwards from behind the hold's account `after`."""
        return self.pages(lambda cursor: calls.holds_of(owner, cursor), Cursor.start(after, HOLDS_AT_ONCE))

    def hold(self, id: bytes) -> HoldView:
        """A hold as everybody may see it."""
        return self.call(calls.hold(id))

    def nodes(self, after: int | None = None) -> Iterator[NodeView]:
        """All nodes that have a payee."""
        return self.pages(calls.nodes, Cursor.start(after))

    def node(self, key: PublicKey) -> NodeView:
        """One of them."""
        return self.call(calls.node(key))

    def batches_of(self, node: PublicKey, after: int | None = None) -> Iterator[Batch]:
        """A node's batches, from new to old; upwards from behind the batch `after`."""
        return self.pages(lambda cursor: calls.batches_of(node, cursor), Cursor.start(after))

    def batch(self, id: int) -> JudgedBatch:
        """One batch, with its verdicts once it is closed."""
        return self.call(calls.batch(id))

    def settlements(self, batch: int, after: int | None = None) -> Iterator[Settlement]:
        """What came into a batch, from new to old; upwards from behind the entry `after`."""
        return self.pages(lambda cursor: calls.settlements(batch, cursor), Cursor.start(after))

    def settlements_of_hold(self, hold: bytes, after: int | None = None) -> Iterator[Settlement]:
        """What has been paid out of a hold, from new to old; upwards from behind the entry `after`."""
        return self.pages(lambda cursor: calls.settlements_of_hold(hold, cursor), Cursor.start(after))

    def supply(self) -> SupplyNow:
        """All credits there are, now."""
        return self.call(calls.supply())

    def epochs(self, after: int | None = None) -> Iterator[Epoch]:
        """The epochs that have ended, from new to old; upwards from behind the number `after`."""
        return self.pages(calls.epochs, Cursor.start(after))

    def entry(self, index: int) -> LoggedEntry:
        """An entry of the log, unproved."""
        return self.call(calls.entry(index))

    def policy(self, id: bytes | None = None) -> Policy:
        """The policy in force, or the one with this ID."""
        return self.call(calls.policy(id))

    def policies(self, after: int | None = None) -> Iterator[Policy]:
        """All versions of the policy, from new to old; upwards from behind the version `after`."""
        return self.pages(calls.policies, Cursor.start(after))

    def models(self, after: int | None = None) -> Iterator[ModelEntry]:
        """The models that work can be paid for."""
        return self.pages(calls.models, Cursor.start(after))

    def model(self, model: bytes, version: int | None = None) -> ModelEntry:
        """One of them: its newest version, or the one asked for."""
        return self.call(calls.model(model, version))

    def heartbeat(self, announcement: Announcement) -> None:
        """Tell the ledger what a node serves."""
        self.call(calls.heartbeat(announcement))

    def directory(self, model: bytes) -> Iterator[Announcement]:
        """Who serves a model, each as its node has signed; what has expired is for the caller to see."""
        return self.pages(lambda cursor: calls.directory(model, cursor), Cursor(ascending=True))

    def put_evidence(self, auditor: Identity, data: bytes) -> bytes:
        """Have the ledger keep what a verdict was made from; its SHA-256, which the verdict names."""
        return self.call(calls.put_evidence(auditor, data))

    def evidence(self, sha256: bytes) -> bytes:
        """What has this SHA-256."""
        return self.call(calls.evidence(sha256))

    def checkpoint(self, witnesses: int = 0) -> Note:
        """The log's newest checkpoint, or the newest that so many witnesses have cosigned; not verified."""
        return self.call(logcalls.checkpoint(witnesses))

    def proof(self, index: int, witnesses: int = 0) -> LogProof:
        """The proof of an entry under such a checkpoint, not verified."""
        return self.call(logcalls.proof(index, witnesses))

    def consistency(self, old: int, new: int) -> list[Hash]:
        """That the log of `new` entries begins with that of `old`, not verified."""
        return self.call(logcalls.consistency(old, new))

    def events(self, after: int | None = None) -> Generator[Event, None, None]:
        """What happens from now on, or behind entry `after`, without an end: where the link breaks, it goes on."""
        parser, failures = EventParser(after), 0
        error: LedgerClientError
        while True:
            try:
                for event in self._listen(parser):
                    failures = 0
                    yield event
                failures, error = 0, UnreachableError("the ledger has ended its events; ask again")
            except (UnreachableError, BusyError) as failed:
                error = failed
            failures += 1
            time.sleep(self._retries.pause_s(failures, error))

    def _exchange(self, call: Call[Any]) -> Reply:
        """Send one request. Raises UnreachableError, AnswerError."""
        request = build_request(self._base, call, int(self._clock_s()))
        try:
            with closing(self._http.send(request, stream=True)) as response:
                return self._read(call, response)
        except (httpx.TransportError, TimeoutError) as error:
            raise unreachable(self._base, error) from error

    def _read(self, call: Call[Any], response: httpx.Response) -> Reply:
        ends_s = time.monotonic() + self._timeout_s + call.transfer_s
        body = BodyReader(call, response)
        for chunk in response.iter_raw():
            body.add(chunk)
            if time.monotonic() > ends_s:
                raise TimeoutError
        return body.reply()

    def _listen(self, parser: EventParser) -> Iterator[Event]:
        """Events until the stream ends. Raises UnreachableError, and what else the ledger answers instead of them."""
        parser.reconnected()
        call = listen(parser.last)
        request = build_request(self._base, call, int(self._clock_s()))
        request.extensions["timeout"] = httpx.Timeout(self._timeout_s, read=SILENCE_S).as_dict()
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if not is_stream(response):
                    judge(call, self._read(call, response))
                for chunk in response.iter_raw():
                    yield from parser.feed(chunk)
        except (httpx.TransportError, TimeoutError) as error:
            raise unreachable(self._base, error) from error
