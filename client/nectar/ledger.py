"""A client's ledger: what is known of it, once for all sessions of a process, and the way to it in one event loop."""

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.errors import RefusedError
from nectar_ledger_client.known import KnownLedger
from nectar_ledger_client.retries import Retries
from nectar_protocol.identity import PublicKey
from nectar_protocol.manifest import ModelID
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy

TIMEOUT_S = 4.0
RETRIES = Retries(tries=2, first_s=0.1, longest_s=1.0)
DOWN_S = 30.0  # how long a ledger that did not answer is not asked again
UNKNOWN_S = 60.0  # nor for what it did not know
COMMAND_LIFE_MS = 300_000
TIME = re.compile(r"\b(\d{13,15})\b")  # the only number of that size in such a refusal
T = TypeVar("T")


@dataclass
class Facts:
    """What a ledger has said and does not take back, or not soon. `ahead_s` is its clock's lead over ours."""

    known: KnownLedger | None = None
    ahead_s: float = 0.0
    policy: Policy | None = None
    models: dict[ModelID, ModelEntry] = field(default_factory=dict)
    bound: set[PublicKey] = field(default_factory=set)
    unknown_s: dict[bytes, float] = field(default_factory=dict)  # models and nodes, and when they were


_facts: dict[str, Facts] = {}


class Ledger:
    """Lives in the connection's loop; close it with `aclose`. Whatever asks it raises LedgerClientError."""

    def __init__(self, address: str, clock_s: Callable[[], float] = time.time) -> None:
        self.address = address
        self._clock_s = clock_s
        self._facts = _facts.setdefault(address, Facts())
        self._down_s = float("-inf")
        self.client = AsyncLedgerClient(
            address, self._facts.known, timeout_s=TIMEOUT_S, retries=RETRIES, clock_s=lambda: self.now_ms / 1000
        )

    async def aclose(self) -> None:
        await self.client.aclose()

    @property
    def id(self) -> bytes | None:
        """None before `learn`."""
        return None if self._facts.known is None else self._facts.known.ledger

    @property
    def policy(self) -> Policy | None:
        """The newest that is known; None before `learn`."""
        return self._facts.policy

    def model(self, model: ModelID) -> ModelEntry | None:
        """None for a model that the ledger does not know, and before `learn`."""
        return self._facts.models.get(model)

    @property
    def now_ms(self) -> int:
        """Unix time by the ledger's own clock."""
        return int((self._clock_s() + self._facts.ahead_s) * 1000)

    @property
    def is_down(self) -> bool:
        """Did it fail to answer not long ago?"""
        return time.monotonic() - self._down_s < DOWN_S

    def went_down(self) -> None:
        self._down_s = time.monotonic()

    async def learn(self, model: ModelID) -> None:
        """Its identity, its policy and the model's entry, as far as they are not known yet."""
        if self._facts.known is None:
            self._facts.known = await self.client.known()
        if self._facts.policy is None:
            await self.renew_policy()
        if model not in self._facts.models and not self._was_unknown(model):
            try:
                self._facts.models[model] = await self.client.model(model)
            except RefusedError as error:
                if not error.is_not_found:
                    raise
                self.forget_model(model)

    def set_clock(self, refusal: RefusedError) -> None:
        """Go by the ledger's clock from now on, which it tells whom it refuses for the time. Raises the refusal."""
        told = TIME.search(refusal.message)
        if told is None:
            raise refusal
        self._facts.ahead_s = int(told[1]) / 1000 - self._clock_s()

    async def in_time(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What a signed request is answered, after another one if it was not signed for the ledger's time."""
        try:
            return await ask()
        except RefusedError as error:
            if error.code != "clock-skew":
                raise
            self.set_clock(error)
        return await ask()

    async def renew_policy(self) -> None:
        """Models too: what is new in one may be so in the others."""
        self._facts.policy = await self.client.policy()
        self._facts.models.clear()

    def forget_model(self, model: ModelID) -> None:
        self._facts.models.pop(model, None)
        self._facts.unknown_s[model] = time.monotonic()

    def may_be_bound(self, node: PublicKey) -> bool:
        """Is a node bound to a payee, for all that is known?"""
        return node in self._facts.bound or not self._was_unknown(node)

    async def look_up(self, nodes: Iterable[PublicKey]) -> None:
        """Which of these are bound to a payee."""
        for node in nodes:
            if node in self._facts.bound:
                continue
            try:
                await self.client.node(node)
                self._facts.bound.add(node)
            except RefusedError as error:
                if not error.is_not_found:
                    raise
                self._facts.unknown_s[node] = time.monotonic()

    def _was_unknown(self, what: bytes) -> bool:
        return time.monotonic() - self._facts.unknown_s.get(what, float("-inf")) < UNKNOWN_S
