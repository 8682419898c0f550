"""The core: what an order means and what an entry does. A `Machine` for the sequencer, and for every replay."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import (
    BindPayee,
    ChangePayee,
    CloseHold,
    Dispute,
    ExtendHold,
    FundPurse,
    Grant,
    KeyPurpose,
    OpenHold,
    PublishModel,
    PublishPolicy,
    SetKey,
    Verdict,
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
    VerdictSealed,
)
from nectar_protocol.entry import Body, entry_hash, pack_entry, parse_entry, seal
from nectar_protocol.errors import ProtocolError
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SIZE as RECEIPT_SIZE

from nectar_ledger.core import batching, disputes, epochs, holding, purses, registry, rules, running, settling
from nectar_ledger.core.machine import Accepted, Draft, Key, Rejected, Row
from nectar_ledger.core.orders import Begin, Obey, Order, Resume, Settle, Tick
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.settling import Due, due
from nectar_ledger.core.state import State
from nectar_ledger.errors import InvariantError

# Of the commands that stand in the log as they are: what has to hold, and what they do.
CHECKS: dict[type[Command], Callable[[State, Any], object]] = {
    BindPayee: registry.check_bind,
    ChangePayee: registry.check_change,
    SetKey: registry.check_set_key,
    FundPurse: purses.check_fund,
    WithdrawPurse: purses.check_withdraw,
    Grant: epochs.check_grant,
    PublishPolicy: rules.check_policy,
    PublishModel: rules.check_model,
    Dispute: disputes.check_dispute,
}
EFFECTS: dict[type[Command], Callable[[State, Any], None]] = {
    BindPayee: registry.apply_bind,
    ChangePayee: registry.apply_change,
    SetKey: registry.apply_set_key,
    FundPurse: purses.apply_fund,
    WithdrawPurse: purses.apply_withdraw,
    Grant: epochs.apply_grant,
    PublishPolicy: rules.apply_policy,
    PublishModel: rules.apply_model,
    Dispute: disputes.apply_dispute,
}


class Decided(NamedTuple):
    """An entry that was just decided. Applied at `position`, nothing came between, so that `found` still holds."""

    position: int
    time_ms: int
    body: Body
    found: Due | None


class Ledger:
    """`holds` signs the ledger's holds; without it none can be opened, as in every replay."""

    def __init__(self, state: State, holds: Identity | None = None) -> None:
        self.state = state
        self._holds = holds
        # What the last decision's entries say, so that applying them does not read and look up everything again.
        self._decided: dict[bytes, Decided] = {}

    def key(self, order: Order) -> Key | None:
        return Key(order.signed.command.id, order.signed.command.body_hash) if isinstance(order, Obey) else None

    def decide(self, order: Order, now_ms: int) -> Accepted | Rejected:
        self._decided.clear()
        try:
            match order:
                case Settle(receipt):
                    found = due(self.state, receipt.receipt, now_ms)
                    return self._accept(now_ms, settling.decide(self.state, receipt, found) if found else [], found)
                case Obey(signed, salt):
                    check_command(self.state, signed.command, now_ms)
                    return self._obey(signed, salt, now_ms)
                case Tick():
                    return self._accept(now_ms, due_by_time(self.state, now_ms))
                case Resume():
                    self.state.ledger  # noqa: B018  # refuses before the genesis
                    return self._accept(now_ms, [Resumed(self.state.time_ms)])
                case Begin(genesis):
                    rules.check_begin(self.state)
                    return self._accept(now_ms, [genesis])
        except Refused as refused:
            return Rejected(refused.reason, refused.message)

    def _obey(self, signed: SignedCommand, salt: bytes, now_ms: int) -> Accepted:
        state, sealed = self.state, salt + signed.pack()
        match signed.command:
            case OpenHold() as command:
                return self._promise(now_ms, holding.decide_open(state, command, now_ms), sealed)
            case ExtendHold() as command:
                return self._promise(now_ms, holding.decide_extend(state, command, now_ms), sealed)
            case CloseHold() as command:
                return self._accept(now_ms, holding.decide_close(state, signed, command))
            case Verdict() as command:
                batching.check_verdict(state, command)
                return Accepted([self._draft(now_ms, VerdictSealed(seal(sealed)), sealed=sealed)])
            case SetKey() as command if registry.is_set(state, command):
                registry.check_set_key(state, command)
                return Accepted([])
            case command:
                CHECKS[type(command)](state, command)
                return self._accept(now_ms, [signed])

    def _promise(self, now_ms: int, hold: Hold, sealed: bytes) -> Accepted:
        if self._holds is None:
            raise InvariantError("a replay opens no holds")
        registry.check_authority(self.state, self._holds.public, KeyPurpose.HOLDS)
        promised = hold.signed(self._holds)
        return Accepted([self._draft(now_ms, HoldOpened(promised, seal(sealed)), sealed=sealed)], promised.pack())

    def _accept(self, now_ms: int, bodies: Sequence[Body], found: Due | None = None) -> Accepted:
        return Accepted([self._draft(now_ms, body, found) for body in bodies])

    def _draft(self, now_ms: int, body: Body, found: Due | None = None, sealed: bytes | None = None) -> Draft:
        entry = pack_entry(now_ms, body)
        self._decided[entry] = Decided(self.state.index + 1, now_ms, body, found)
        return Draft(entry, sealed)

    def apply(self, index: int, entry: bytes, sealed: bytes | None = None) -> None:
        """Raises InvariantError for an entry that would not have been decided, or cannot be read."""
        try:
            decided = self._decided.pop(entry, None) if self._decided else None
            if decided is None and running.apply(self.state, index, entry):
                return
            decided = decided or Decided(index, *parse_entry(entry)[1:], None)
            self.state.begin(index, decided.time_ms)
            if index == 0 and not isinstance(decided.body, Genesis):
                raise InvariantError("the first entry of a log is its genesis")
            self._apply(decided.body, entry, sealed, decided.found if index == decided.position else None)
        except (Refused, ProtocolError) as error:
            raise InvariantError(f"entry {index} breaks a rule of the ledger: {error}") from error

    def _apply(self, body: Body, entry: bytes, sealed: bytes | None, found: Due | None) -> None:
        state = self.state
        match body:
            case Settled():
                settling.apply(state, body, entry[-RECEIPT_SIZE:], found)
            case HoldOpened():
                self._record(holding.apply_opened(state, body, sealed), body.hold.pack())
            case HoldClosed():
                holding.apply_closed(state, body)
                self._record(body.asked)
            case SignedCommand(command):
                self._record(body)
                EFFECTS[type(command)](state, command)
            case VerdictSealed():
                self._record(batching.apply_verdict(state, body, sealed))
            case BatchClosed():
                batching.apply_closed(state, body)
            case Emitted():
                epochs.apply_emitted(state, body)
            case EpochClosed():
                epochs.apply_epoch(state, body)
            case Resumed():
                epochs.apply_resumed(state, body)
            case Genesis():
                rules.apply_genesis(state, body, entry_hash(entry))

    def _record(self, signed: SignedCommand | None, response: bytes = b"") -> None:
        """Its answer, for when it is sent again. Raises Refused for what no command may be."""
        if signed is not None:
            command = signed.command
            check_command(self.state, command, self.state.time_ms)
            self.state.add("commands", (command.id, command.body_hash, self.state.index, response))

    def take_rows(self) -> Iterable[tuple[str, Row]]:
        return self.state.take_rows()


def check_command(state: State, command: Command, now_ms: int) -> None:
    """What every command needs. Raises Refused."""
    if command.ledger != state.ledger.id:
        raise Refused(Reason.FOREIGN_LEDGER, f"the command is for another ledger; this one is {state.ledger.id.hex()}")
    if command.expires_ms < now_ms:
        raise Refused(Reason.COMMAND_EXPIRED, f"the command has expired; at the ledger it is {now_ms} ms")


def due_by_time(state: State, now_ms: int) -> Sequence[Body]:
    """What time brings. An epoch that ends comes first and alone, so that its books are those of one moment."""
    if state.books is None:
        return []
    epoch = epochs.decide_epoch(state, now_ms)
    return epoch or [*holding.decide_expired(state, now_ms), *batching.decide_due(state, now_ms)]
