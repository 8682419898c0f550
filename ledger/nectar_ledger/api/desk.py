"""What the operations that write share: who may ask how much, the threads that verify, the way to the sequencer."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader
from nectar_protocol.identity import PublicKey

from nectar_ledger.api.auth import Authenticator, Sender
from nectar_ledger.api.errors import ApiError, Problem, refusals
from nectar_ledger.api.limits import Buckets, Limits, address_of
from nectar_ledger.api.metrics import Metrics
from nectar_ledger.core.machine import Outcome
from nectar_ledger.core.orders import Order
from nectar_ledger.errors import FullError
from nectar_ledger.service import Service

RETRY_AFTER_S = 1.0
MAX_SINGLES = 8

T = TypeVar("T")


class Desk:
    """Of one application. PyNaCl frees the interpreter while it verifies, so a thread for each core is enough; batches
    have threads of their own, or one signature would wait for thousands.
    """

    def __init__(self, service: Service, limits: Limits, metrics: Metrics, public_url: str | None) -> None:
        self.service, self.limits, self.metrics = service, limits, metrics
        self.authenticator = Authenticator(service.clock_ms, self._is_known, limits.nonces, public_url)
        self.strangers = Buckets("commands of strangers from this address", limits.strangers_per_address)
        self.commands = Buckets("commands by this key", limits.commands_per_key)
        self._by_key = Buckets("signatures to verify for this key", limits.verifications_per_key)
        self._by_address = Buckets("signatures to verify for this address", limits.verifications_per_address)
        self._singles = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="single")
        self._batches = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="batch")
        self._in_flight = 0

    def _is_known(self, key: PublicKey) -> bool:
        """An account's or a bound node's."""
        state = self.service.state
        return key in state.nodes or key in state.wallets

    def take(self, address: str, key: PublicKey | None, count: int) -> None:
        """Before `count` signatures are verified. Raises ApiError."""
        self._by_address.take(address, count)
        if key is not None:
            self._by_key.take(key, count)
        self.metrics.verified.inc(count)

    def fine(self, address: str, key: PublicKey | None) -> None:
        """For a signature that was wrong."""
        self._by_address.fine(address, self.limits.bad_signature_cost)
        if key is not None:
            self._by_key.fine(key, self.limits.bad_signature_cost)
        self.metrics.bad_signatures.inc()

    async def verify(self, job: Callable[[], T], count: int = 1) -> T:
        """Run a job that verifies at most `count` signatures in a thread. Raises FullError if too many wait."""
        if self._in_flight + count > self.limits.signatures_in_flight:
            raise FullError(f"{self._in_flight} signatures wait to be verified: send it again later", RETRY_AFTER_S)
        self._wait(count)
        threads = self._singles if count <= MAX_SINGLES else self._batches
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, job)
        finally:
            self._wait(-count)

    def _wait(self, count: int) -> None:
        self._in_flight += count
        self.metrics.waiting.set(self._in_flight)

    async def record(self, orders: Sequence[Order]) -> list[Outcome]:
        """What becomes of each, once all are durable. Whoever waits may go away: the orders are recorded all the same.

        Raises FullError, NotRecordedError, StoppedError.
        """
        return await asyncio.shield(asyncio.wrap_future(self.service.submit(orders)))

    async def sender(self, request: Request) -> Sender:
        """Raises ApiError unless somebody signed the request, now and once. Its body has not been looked at."""
        address = address_of(request)
        signed = self.authenticator.signed(request)
        self.take(address, None, 1)
        try:
            return await self.verify(lambda: self.authenticator.verify(signed))
        except ApiError as error:
            if error.code is Problem.BAD_REQUEST_SIGNATURE:
                self.fine(address, None)
            raise

    def close(self) -> None:
        self._singles.shutdown()
        self._batches.shutdown()


async def get_desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(get_desk)]

SIGNATURE = APIKeyHeader(
    name="Signature",
    scheme_name="signature",
    description="RFC 9421 by an Ed25519 key: covers @method, @authority, @target-uri and content-digest (SHA-256, also "
    'of no body), with created, expires (at most 60 s later), nonce, keyid (the public key in hex), tag "nectar".',
    auto_error=False,
)
SIGNED = refusals(
    Problem.UNSIGNED_REQUEST,
    Problem.BAD_REQUEST_SIGNATURE,
    Problem.CLOCK_SKEW,
    Problem.REPLAYED_REQUEST,
)


async def get_sender(request: Request, desk: AtDesk, signature: Annotated[str | None, Depends(SIGNATURE)]) -> Sender:
    """Who signed a request whose body has still to be read and checked."""
    return await desk.sender(request)


async def get_reader(sender: Annotated[Sender, Depends(get_sender)]) -> PublicKey:
    """Who signed a request without a body."""
    sender.check_body(b"")
    return sender.key


# For operations that are for some keys only; their responses include SIGNED.
SentBy = Annotated[Sender, Depends(get_sender)]
ReadBy = Annotated[PublicKey, Depends(get_reader)]
