"""A small world around a ledger: its keys, people, nodes and a model, and what they sign."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import Any

from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.machine import Accepted, Answer, Draft, Outcome, Rejected
from nectar_ledger.core.orders import Begin, Obey, Order, Settle, Tick
from nectar_ledger.core.state import State
from nectar_protocol.announcement import Profile
from nectar_protocol.command import Command
from nectar_protocol.commands import (
    BindPayee,
    ChangePayee,
    CloseHold,
    Dispute,
    ExtendHold,
    FundPurse,
    Grant,
    KeyPurpose,
    KeyState,
    OpenHold,
    PublishModel,
    PublishPolicy,
    SetKey,
    Verdict,
    WithdrawPurse,
)
from nectar_protocol.commands import Outcome as Finding
from nectar_protocol.entries import Genesis
from nectar_protocol.entry import Body, entry_hash, pack_entry, parse_entry
from nectar_protocol.hold import Hold, Line, SignedHold, sorted_lines
from nectar_protocol.identity import Identity
from nectar_protocol.metering import units
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE, Policy
from nectar_protocol.receipt import Receipt, SignedReceipt, Work

START_MS = 1_800_000_000_000
ORIGIN = "ledger.example/test"
MODEL = ModelEntry(sha256(b"a model").digest(), 1, AuditState.ENFORCED, (BlockCost(20_000_000, 4_000, 0),) * 8)
POLICY = replace(EXAMPLE, hold_least_ucr=1, purse_step_ucr=1_000, grants_ucr=10**15, batch_ms=60_000)
FAR_MS = START_MS + 10**12
HOUR_MS = 3_600_000


def person(name: str) -> Identity:
    """The same key for the same name."""
    return Identity.from_seed(sha256(name.encode()).digest())


@dataclass
class Keys:
    operator: Identity = field(default_factory=lambda: person("operator"))
    publisher: Identity = field(default_factory=lambda: person("publisher"))
    holds: Identity = field(default_factory=lambda: person("holds"))
    log: Identity = field(default_factory=lambda: person("log"))


class World:
    """What anybody signs for one ledger, whose ID follows from its genesis. Command IDs are counted."""

    def __init__(self, policy: Policy = POLICY, model: ModelEntry = MODEL, start_ms: int = START_MS) -> None:
        self.keys, self.policy, self.model, self.start_ms = Keys(), policy, model, start_ms
        self.policies = {policy.id: policy}
        keys = self.keys
        self.genesis = Genesis(
            ORIGIN, keys.operator.public, keys.publisher.public, keys.holds.public, keys.log.public, policy
        )
        self.ledger = entry_hash(pack_entry(start_ms, self.genesis))
        self._ids = count(1)

    def obey(self, kind: type[Command], *signers: Identity, **fields: Any) -> Obey:
        """A signed command of a kind, with a salt."""
        number = next(self._ids)
        head = {"ledger": self.ledger, "id": number.to_bytes(16, "big"), "expires_ms": FAR_MS}
        command = kind(**(head | fields))
        return Obey(command.signed(*signers), sha256(number.to_bytes(16, "big")).digest())

    def grant(self, account: Identity, amount_ucr: int) -> Obey:
        operator = self.keys.operator
        return self.obey(Grant, operator, operator=operator.public, account=account.public, amount_ucr=amount_ucr)

    def fund(self, account: Identity, amount_ucr: int) -> Obey:
        return self.obey(FundPurse, account, account=account.public, amount_ucr=amount_ucr)

    def withdraw(self, account: Identity, amount_ucr: int) -> Obey:
        return self.obey(WithdrawPurse, account, account=account.public, amount_ucr=amount_ucr)

    def bind(self, node: Identity, payee: Identity) -> Obey:
        return self.obey(BindPayee, node, payee, node=node.public, payee=payee.public)

    def change_payee(self, node: Identity, payee: Identity, successor: Identity) -> Obey:
        return self.obey(
            ChangePayee, payee, successor, node=node.public, payee=payee.public, successor=successor.public
        )

    def publish_model(self, entry: ModelEntry | None = None) -> Obey:
        publisher = self.keys.publisher
        return self.obey(PublishModel, publisher, publisher=publisher.public, entry=entry or self.model)

    def publish_policy(self, policy: Policy) -> Obey:
        """Holds asked for from now on name this policy."""
        self.policies[policy.id] = self.policy = policy
        publisher = self.keys.publisher
        return self.obey(PublishPolicy, publisher, publisher=publisher.public, policy=policy)

    def set_key(self, key: Identity, purpose: KeyPurpose, state: KeyState = KeyState.ACTIVE) -> Obey:
        operator = self.keys.operator
        return self.obey(SetKey, operator, operator=operator.public, key=key.public, purpose=purpose, state=state)

    def open_hold(
        self, payer: Identity, session: Identity, caps: dict[Identity, int], expires_ms: int, weight: int = 1
    ) -> Obey:
        """Of weight 0 where the payer is the session."""
        return self.obey(
            OpenHold, payer, payer=payer.public, session=session.public, model=self.model.model,
            policy=self.policy.id, hold_expires_ms=expires_ms, weight=0 if payer == session else weight,
            profiles=frozenset(Profile), lines=lines_of(caps),
        )  # fmt: skip

    def extend(
        self, payer: Identity, hold: Hold, caps: dict[Identity, int], expires_ms: int, revision: int | None = None
    ) -> Obey:
        """By default to the next revision."""
        return self.obey(
            ExtendHold, payer, payer=payer.public, hold=hold.id, hold_expires_ms=expires_ms,
            revision=revision or hold.revision + 1, lines=lines_of(caps),
        )  # fmt: skip

    def close(self, session: Identity, hold: Hold) -> Obey:
        return self.obey(CloseHold, session, session=session.public, hold=hold.id)

    def dispute(self, session: Identity, hold: Hold, node: Identity) -> Obey:
        return self.obey(Dispute, session, session=session.public, hold=hold.id, node=node.public, evidence=bytes(32))

    def verdict(
        self, auditor: Identity, node: Identity, batch: int, hold: Hold, outcome: Finding, evidence: bytes = b"evidence"
    ) -> Obey:
        return self.obey(
            Verdict, auditor, auditor=auditor.public, node=node.public, batch=batch, hold=hold.id, start=0, stop=1,
            profile=Profile.F32, outcome=outcome, tokens=32, error_ppm=100, limit_ppm=1000,
            evidence=sha256(evidence).digest(),
        )  # fmt: skip

    def receipt(
        self, hold: Hold, node: Identity, session: Identity, seq: int, tokens: int, final: bool = False, **changes: Any
    ) -> Settle:
        """A running total of `tokens` decoded, through all blocks; `changes` of the receipt before it is signed."""
        work = decoded(tokens)
        due = units(work, 0, len(self.model.blocks), Profile.F32, self.model, self.policies[hold.policy])
        receipt = Receipt(
            hold.id, node.public, session.public, bytes(32), seq, 0, len(self.model.blocks), Profile.F32, final, work,
            due,
        )  # fmt: skip
        receipt = replace(receipt, **changes)
        return Settle(SignedReceipt(receipt, receipt.sign(node), receipt.sign(session)))


def decoded(tokens: int) -> Work:
    """Of a session that decoded its first `tokens` positions."""
    return Work(decode_tokens=tokens, decode_context=tokens * (tokens - 1) // 2)


def lines_of(caps: dict[Identity, int]) -> tuple[Line, ...]:
    return sorted_lines(Line(node.public, cap) for node, cap in caps.items())


class Book:
    """A ledger in memory, with the log that it has written: what the sequencer does, without a store."""

    def __init__(self, world: World, now_ms: int = START_MS) -> None:
        self.world, self.now_ms = world, now_ms
        self.ledger = Ledger(State(), world.keys.holds)
        self.log: list[Draft] = []
        self._answers: dict[bytes, tuple[bytes, Answer]] = {}
        self.do(Begin(world.genesis))

    @property
    def state(self) -> State:
        return self.ledger.state

    def submit(self, order: Order) -> Outcome:
        key = self.ledger.key(order)
        if key is not None and key.id in self._answers:
            body_hash, answer = self._answers[key.id]
            return answer if body_hash == key.body_hash else Rejected("conflict", "another command has this ID")
        decision = self.ledger.decide(order, self.now_ms)
        if isinstance(decision, Rejected):
            return decision
        return self._append(decision, key and (key.id, key.body_hash))

    def _append(self, decision: Accepted, key: tuple[bytes, bytes] | None) -> Answer:
        answer = Answer(len(self.log) if decision.drafts else None, decision.response)
        for draft in decision.drafts:
            self.ledger.apply(len(self.log), draft.entry, draft.sealed)
            self.log.append(draft)
        if key is not None and decision.drafts:
            self._answers[key[0]] = key[1], answer
        return answer

    def do(self, *orders: Order) -> list[Answer]:
        """Each must be accepted."""
        answers = []
        for order in orders:
            outcome = self.submit(order)
            assert isinstance(outcome, Answer), outcome
            answers.append(outcome)
        return answers

    def open(self, order: Obey) -> Hold:
        """Open or extend a hold."""
        (answer,) = self.do(order)
        return SignedHold.unpack(answer.response).hold

    def refuse(self, order: Order) -> str:
        """It must be rejected: the code. Nothing may have been recorded."""
        before = len(self.log)
        outcome = self.submit(order)
        assert isinstance(outcome, Rejected), outcome
        assert len(self.log) == before
        return outcome.code

    def tick(self, wait_ms: int = 0) -> list[Body]:
        """Let time pass and do what is due then: what is recorded."""
        self.now_ms += wait_ms
        before = len(self.log)
        self.do(Tick())
        return self.bodies(before)

    def bodies(self, start: int = 0) -> list[Body]:
        """What the log says from entry `start` on."""
        return [parse_entry(draft.entry).body for draft in self.log[start:]]

    def balance_ucr(self, account: Identity) -> int:
        wallet = self.state.wallets.get(account.public)
        return 0 if wallet is None else wallet.balance_ucr

    def purse_ucr(self, account: Identity) -> int:
        purse = self.state.purses.get(self.state.wallets[account.public].id)
        return 0 if purse is None else purse.balance_ucr

    def pending_ucr(self, node: Identity) -> int:
        """What waits in a node's batches."""
        return sum(batch.account.balance_ucr for batch in self.state.nodes[node.public].batches.values())


def replay(drafts: Iterable[Draft], public: bool = False) -> Ledger:
    """The log once more, into an empty ledger."""
    ledger = Ledger(State(public))
    for index, draft in enumerate(drafts):
        ledger.apply(index, draft.entry, None if public else draft.sealed)
    return ledger
