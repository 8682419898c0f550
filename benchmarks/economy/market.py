"""A ledger in memory and the people around it: where cheats are played.

All orders go through the core's own `decide` and `apply`. What the ledger's service checks before the core is asked is
checked here too: signatures, and commands that are sent again.
"""

from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.machine import Accepted, Answer, Draft, Outcome, Rejected
from nectar_ledger.core.orders import Begin, Obey, Order, Resume, Settle, Tick
from nectar_ledger.core.state import EMISSION, POOL, State
from nectar_ledger.errors import InvariantError
from nectar_protocol.announcement import Profile
from nectar_protocol.command import Command
from nectar_protocol.commands import (
    BindPayee,
    FundPurse,
    Grant,
    KeyPurpose,
    KeyState,
    OpenHold,
    PublishModel,
    SetKey,
    WithdrawPurse,
)
from nectar_protocol.entries import Genesis
from nectar_protocol.entry import entry_hash, pack_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.hold import Hold, Line, SignedHold, sorted_lines
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.money import charge_ucr
from nectar_protocol.policy import EXAMPLE, Policy
from nectar_protocol.receipt import Receipt, SignedReceipt, Work

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
FAR_MS = START_MS + 10**12
ORIGIN = "ledger.example/market"
BLOCKS = 8
# A decoded token is 64,000 units, 0.064 credits.
MODEL = ModelEntry(sha256(b"a model").digest(), 1, AuditState.ENFORCED, (BlockCost(2_000_000_000, 400_000),) * BLOCKS)
POLICY = replace(EXAMPLE, grants_ucr=10**15, purse_step_ucr=1)


def person(role: str, number: int = 0) -> Identity:
    """The same key for the same name."""
    return Identity.from_seed(sha256(f"{role} {number}".encode()).digest())


def people(role: str, number: int) -> list[Identity]:
    return [person(role, n) for n in range(number)]


def decoded(tokens: int) -> Work:
    """Of a session that decoded its first `tokens` positions."""
    return Work(decode_tokens=tokens, decode_context=tokens * (tokens - 1) // 2)


class Market:
    """`now_ms` is everybody's clock; `log` is what the ledger has written."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy, self.now_ms = policy, START_MS
        self.operator, self.publisher, self.holds_key, self.log_key = people("key of the ledger", 4)
        operator, publisher, holds, log = (
            key.public for key in (self.operator, self.publisher, self.holds_key, self.log_key)
        )
        genesis = Genesis(ORIGIN, operator, publisher, holds, log, policy)
        self.id = entry_hash(pack_entry(START_MS, genesis))
        self.meter = Meter.of(0, BLOCKS, Profile.F32, MODEL, policy)
        self.ledger = Ledger(State(), self.holds_key)
        self.log: list[Draft] = []
        self._ids = count(1)
        self._answers: dict[bytes, tuple[bytes, Answer]] = {}
        self.must(self.submit(Begin(genesis)))
        self.must(self.send(PublishModel, self.publisher, publisher=self.publisher.public, entry=MODEL))

    @property
    def state(self) -> State:
        return self.ledger.state

    # Orders

    def submit(self, order: Order) -> Outcome:
        key = self.ledger.key(order)
        if key is not None and key.id in self._answers:
            body_hash, answer = self._answers[key.id]
            return answer if body_hash == key.body_hash else Rejected("conflict", "another command has this ID")
        decision = self.ledger.decide(order, self.now_ms)
        if isinstance(decision, Rejected):
            return decision
        try:
            answer = self._append(decision)
        except InvariantError as error:
            self.restart()
            return Rejected("not-recorded", str(error))
        if key is not None and decision.drafts:
            self._answers[key.id] = key.body_hash, answer
        return answer

    def _append(self, decision: Accepted) -> Answer:
        index = len(self.log) if decision.drafts else None
        for draft in decision.drafts:
            self.ledger.apply(len(self.log), draft.entry, draft.sealed)
            self.log.append(draft)
        return Answer(index, decision.response)

    def restart(self) -> None:
        """The ledger dies and comes back with what its log says."""
        self.ledger = Ledger(State(), self.holds_key)
        for index, draft in enumerate(self.log):
            self.ledger.apply(index, draft.entry, draft.sealed)

    def must(self, outcome: Outcome) -> Answer:
        """Of what an attack's setting needs. Raises RuntimeError if it was refused."""
        if isinstance(outcome, Rejected):
            raise RuntimeError(f"{outcome.code}: {outcome.message}")
        return outcome

    def send(self, kind: type[Command], *signers: Identity, **fields: Any) -> Outcome:
        return self.submit(self.obey(kind, *signers, **fields))

    def obey(self, kind: type[Command], *signers: Identity, **fields: Any) -> Obey:
        """A new signed command."""
        id = next(self._ids).to_bytes(16, "big")
        head: dict[str, Any] = {"ledger": self.id, "id": id, "expires_ms": FAR_MS}
        signed = kind(**(head | fields)).signed(*signers)
        return Obey(signed, sha256(id).digest())

    def post(self, data: bytes) -> Outcome:
        """A receipt, as it comes over the network: both signatures are verified."""
        try:
            signed = SignedReceipt.unpack(data)
            signed.verify()
        except ProtocolError as error:
            return Rejected("bad-signature", str(error))
        return self.submit(Settle(signed))

    def pass_time(self, ms: int = 0) -> None:
        """And have the ledger do all that is due then."""
        self.now_ms += ms
        while self.must(self.submit(Tick())).index is not None:
            pass

    def resume(self) -> None:
        self.must(self.submit(Resume()))

    # What people do

    def bind(self, node: Identity, payee: Identity) -> None:
        self.must(self.send(BindPayee, node, payee, node=node.public, payee=payee.public))

    def name_auditor(self, auditor: Identity) -> None:
        operator, purpose = self.operator.public, KeyPurpose.AUDITOR
        fields = {"operator": operator, "key": auditor.public, "purpose": purpose, "state": KeyState.ACTIVE}
        self.must(self.send(SetKey, self.operator, **fields))

    def grant(self, account: Identity, ucr: int) -> None:
        operator = self.operator
        self.must(self.send(Grant, operator, operator=operator.public, account=account.public, amount_ucr=ucr))

    def fund(self, account: Identity, ucr: int) -> Outcome:
        return self.send(FundPurse, account, account=account.public, amount_ucr=ucr)

    def withdraw(self, account: Identity, ucr: int) -> Outcome:
        return self.send(WithdrawPurse, account, account=account.public, amount_ucr=ucr)

    def enrich(self, account: Identity, ucr: int) -> None:
        """Put new credits into a purse."""
        self.grant(account, ucr)
        self.must(self.fund(account, ucr))

    def open_hold(
        self, payer: Identity, session: Identity, caps: dict[Identity, int], weight: int = 1
    ) -> Hold | Rejected:
        """Free, if the session itself asks."""
        outcome = self.send(
            OpenHold, payer, payer=payer.public, session=session.public, model=MODEL.model, policy=self.policy.id,
            hold_expires_ms=self.now_ms + self.policy.hold_life_ms, weight=0 if payer == session else weight,
            profiles=frozenset(Profile), lines=sorted_lines(Line(node.public, cap) for node, cap in caps.items()),
        )  # fmt: skip
        return outcome if isinstance(outcome, Rejected) else SignedHold.unpack(outcome.response).hold

    def opened(self, payer: Identity, session: Identity, caps: dict[Identity, int], weight: int = 1) -> Hold:
        """As `open_hold`, where it must not fail."""
        hold = self.open_hold(payer, session, caps, weight)
        if isinstance(hold, Rejected):
            raise RuntimeError(f"{hold.code}: {hold.message}")
        return hold

    def bill(
        self, hold: Hold, node: Identity, seq: int, work: Work, final: bool = False, units: int | None = None
    ) -> Receipt:
        """Of work through all blocks; `units` other than it is worth are a lie."""
        due = self.meter.units(work) if units is None else units
        return Receipt(
            hold.id, node.public, hold.session, bytes(32), seq, 0, BLOCKS, Profile.F32, final, work, due
        )  # fmt: skip

    def settle(self, receipt: Receipt, node: Identity, session: Identity) -> Outcome:
        """Post a receipt that both sign."""
        return self.post(SignedReceipt(receipt, receipt.sign(node), receipt.sign(session)).pack())

    def price_ucr(self, units: int, weight: int = 1) -> int:
        return charge_ucr(units, weight, self.policy.price)

    # Who has what

    def wealth_ucr(self, *owners: Identity) -> int:
        """What these people have together: on their accounts, in purses, set aside, and pending."""
        state, keys = self.state, {owner.public for owner in owners}
        wallets = {account.id: account for key, account in state.wallets.items() if key in keys}
        purses = sum(purse.balance_ucr for id, purse in state.purses.items() if id in wallets)
        holds = sum(
            live.account.balance_ucr
            for live in state.holds.values()
            if live.purse is not None and live.purse.account.id in wallets
        )
        batches = sum(batch.account.balance_ucr for batch in state.batches.values() if batch.node.payee.id in wallets)
        return sum(account.balance_ucr for account in wallets.values()) + purses + holds + batches

    def balance_ucr(self, owner: Identity) -> int:
        """What is on an account, and neither in its purse nor pending."""
        wallet = self.state.wallets.get(owner.public)
        return 0 if wallet is None else wallet.balance_ucr

    def is_balanced(self) -> bool:
        """All accounts add up to nothing, none but the emission's is below zero, and the pool has what purses have."""
        accounts = self.state.accounts
        balances = {id: account.balance_ucr for id, account in accounts.items()}
        purses_ucr = sum(purse.balance_ucr for purse in self.state.purses.values())
        no_debts = min(balance for id, balance in balances.items() if id != EMISSION) >= 0
        return sum(balances.values()) == 0 and balances[POOL] == purses_ucr and no_debts
