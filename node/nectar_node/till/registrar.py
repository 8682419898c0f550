"""What a node has to do with its ledger beside receipts: know it, be bound to a payee, and say what it serves."""

import asyncio
import logging
import random
from collections.abc import Callable

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.binding import complete_request, make_request, parse_request
from nectar_ledger_client.errors import LedgerClientError, RefusedError, UntrustedError
from nectar_protocol.announcement import Announcement
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import Identity, PublicKey
from nectar_swarm.waiting import first_of

from nectar_node.till.facts import Facts
from nectar_node.till.till import Till

ROUND_S = 30.0
CURIOUS_S = 1.0  # between two rounds at least, whatever holds name
FRESH_MS = 86_400_000  # what a request for binding is good for at least when it is told

log = logging.getLogger(__name__)


class Registrar:
    """`last_word` is what the node announced last, `owner_key` the payee's if at hand; `say` tells the operator."""

    def __init__(
        self,
        client: AsyncLedgerClient,
        till: Till,
        last_word: Callable[[], Announcement | None],
        say: Callable[[str], None],
        owner_key: Identity | None = None,
        round_s: float = ROUND_S,
    ) -> None:
        self._client, self._till, self._last_word, self._say = client, till, last_word, say
        self._owner_key, self._round_s = owner_key, round_s
        self._told: set[str] = set()

    async def run(self) -> None:
        """A round now and then, until cancelled. The first one that fails is told, and the first that works again."""
        works = True
        while True:
            try:
                await self.round()
                works = True
            except LedgerClientError as error:
                level = logging.WARNING if works else logging.INFO
                log.log(level, "%s; holds are taken as far as the ledger is known, and receipts kept", error)
                works = False
            except Exception:  # our own mistake; the next round may go better
                log.exception("a round to the ledger failed")
            await asyncio.sleep(CURIOUS_S)
            await first_of(self._till.curious.wait(), timeout_s=self._round_s * random.uniform(0.75, 1.25))
            self._till.curious.clear()

    async def round(self) -> None:
        """Learn what is new and say what we serve. Raises LedgerClientError."""
        await self._learn(self._till.facts)
        await self._see_to_payee(self._till.facts)
        await self.tell()

    async def tell(self) -> None:
        """Say what the node has announced last. Raises LedgerClientError."""
        word = self._last_word()
        if word is not None and word.expires_ms > self._till.now_ms():
            await self._client.heartbeat(word)

    async def _learn(self, facts: Facts) -> None:
        if facts.ledger is None:
            facts.learn_ledger((await self._client.entry(0)).data)
        now = await self._client.ledger()
        if facts.ledger is None or now.ledger != facts.ledger.ledger:
            known = "none" if facts.ledger is None else facts.ledger.ledger.hex()
            raise UntrustedError(f"the ledger at this address is {now.ledger.hex()}, and the node's is {known}")
        for policy in {now.policy, *self._till.wanted} - set(facts.policies):
            facts.learn_policy(await self._client.policy(policy))
        self._till.wanted.clear()
        try:
            facts.learn_model(await self._client.model(self._till.model))
        except RefusedError as error:
            if not error.is_not_found:
                raise
            self._tell("the ledger has no entry for this model: it is served unmetered until there is one")

    async def _see_to_payee(self, facts: Facts) -> None:
        try:
            node = await self._client.node(self._till.identity.public)
        except RefusedError as error:
            if not error.is_not_found:
                raise
            await self._bind(facts)
            return
        facts.learn_payee(node.payee)
        owner = self._till.owner
        if owner not in (None, node.payee):
            self._tell(
                f"this node's earnings go to {node.payee.hex()}, not to its --owner: only that account's key can "
                "change it. Until then it serves unmetered"
            )

    async def _bind(self, facts: Facts) -> None:
        owner, key, ledger = self._till.owner, self._owner_key, facts.ledger
        if owner is None or ledger is None:
            self._tell("this node is bound to no account and serves unmetered: say with --owner who earns")
            return
        request = self._request(facts, owner, ledger.ledger)
        if key is not None:
            await self._client.send_command(complete_request(request, key))
            facts.learn_payee(owner)
            return
        self._tell(
            "this node serves unmetered until it is bound to its owner's account. On the owner's machine:\n"
            f"nectar wallet bind {request}"
        )

    def _request(self, facts: Facts, owner: PublicKey, ledger: bytes) -> str:
        """The one that was made before, while it is good."""
        identity, now_ms = self._till.identity, self._till.now_ms()
        try:
            command, _ = parse_request(facts.binding)
            fresh = command.expires_ms > now_ms + FRESH_MS
            if fresh and (command.node, command.payee, command.ledger) == (identity.public, owner, ledger):
                return facts.binding
        except ProtocolError:
            pass  # none was made before
        facts.ask_for_binding(make_request(identity, owner, ledger, now_ms))
        return facts.binding

    def _tell(self, text: str) -> None:
        """Once."""
        if text not in self._told:
            self._told.add(text)
            self._say(text)
