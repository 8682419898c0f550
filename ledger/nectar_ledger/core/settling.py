"""How a receipt becomes credits: out of the hold's account, to the node's batch and to be burned."""

from operator import lt
from typing import NamedTuple

from nectar_protocol.entries import CloseReason, HoldClosed, Settled
from nectar_protocol.errors import ProtocolError
from nectar_protocol.metering import Meter
from nectar_protocol.money import Settlement, settle
from nectar_protocol.receipt import Receipt, SignedReceipt
from nectar_protocol.record import MAX_COUNT

from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.core.hold import TOTALS_AT, HoldLine, LiveHold
from nectar_ledger.core.node import Batch
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.state import BURNED, State
from nectar_ledger.errors import InvariantError


class Due(NamedTuple):
    """What a receipt moves, where it counts."""

    hold: LiveHold
    line: HoldLine
    moved: Settlement


def due(state: State, receipt: Receipt, now_ms: int) -> Due | None:
    """None if the line has had this receipt or a newer one. Raises Refused. Signatures are not looked at.

    Cheap, and safe beside the thread that applies entries: the answer may be out of date, and is then given again.
    """
    hold = state.holds.get(receipt.hold)
    if hold is None:
        raise Refused(Reason.UNKNOWN_HOLD, "no open hold has this ID: it was never opened, or is closed")
    line = hold.lines.get(receipt.server)
    if line is None:
        raise Refused(Reason.NO_LINE, "the hold has no line for this node: have the client extend it")
    if receipt.session != hold.hold.session:
        raise Refused(Reason.WRONG_SESSION, "the receipt is not of this hold's session")
    if receipt.seq <= line.seq:
        return None
    if line.final:
        raise Refused(Reason.LINE_FINAL, "both sides have marked an earlier receipt of this line as final")
    if now_ms > hold.hold.expires_ms and now_ms > state.grace_ends_ms(hold):
        raise Refused(Reason.HOLD_EXPIRED, "the hold's grace is over: what it set aside goes back to its payer")
    meter = line.meter
    if meter is None:
        if receipt.profile not in hold.hold.profiles:
            raise Refused(Reason.WRONG_PROFILE, f"the hold does not take {receipt.profile.name.lower()}")
        meter = _meter(state, hold, receipt)
    elif receipt.start != line.start or receipt.stop != line.stop or receipt.profile is not line.profile:
        raise Refused(Reason.WRONG_TOTALS, "the receipts of a line are of one span and one profile")
    before, units = line.units, receipt.units
    if units < before or any(map(lt, receipt.work, line.work)):
        raise Refused(Reason.WRONG_TOTALS, "a total falls: the receipts of a line are running totals")
    if units != _worth(meter, receipt):
        message = f"the receipt says {units} units; its work comes to {_worth(meter, receipt)} under the hold's policy"
        raise Refused(Reason.WRONG_UNITS, message)
    if units > line.cap_units:
        raise Refused(Reason.OVER_CAP, f"{units} units are over the line's cap of {line.cap_units}")
    policy = hold.policy
    return Due(hold, line, settle(before, units, hold.hold.weight, policy.price, policy.fee_ppm))


def _meter(state: State, hold: LiveHold, receipt: Receipt) -> Meter:
    try:
        return state.meter(hold, receipt.start, receipt.stop, receipt.profile)
    except ProtocolError as error:
        raise Refused(Reason.WRONG_UNITS, str(error)) from error


def _worth(meter: Meter, receipt: Receipt) -> int:
    try:
        return meter.units(receipt.work)
    except ProtocolError as error:
        raise Refused(Reason.WRONG_UNITS, str(error)) from error


def decide(state: State, signed: SignedReceipt, found: Due) -> list[Settled | HoldClosed]:
    """The entries of a receipt; `found` is what is due for it."""
    receipt = signed.receipt
    hold, line, moved = found
    batch = line.node.batches.get(hold.hold.model)
    batch_account = state.ledger.next_account if batch is None else batch.account.id
    entries: list[Settled | HoldClosed] = [Settled(hold.account.id, batch_account, *moved, signed)]
    if receipt.final and all(other.final for other in hold.lines.values() if other is not line):
        left_ucr = hold.account.balance_ucr - sum(moved)
        entries.append(HoldClosed(hold.hold.id, hold.account.id, left_ucr, CloseReason.FINAL, True))
    return entries


def apply(state: State, entry: Settled, packed: bytes, found: Due | None) -> None:
    """`packed` is the entry's receipt, `found` what is due for it now, if that is known.

    Raises Refused or InvariantError for what `decide` would not have made.
    """
    receipt = entry.receipt.receipt
    found = found or due(state, receipt, state.time_ms)
    if found is None:
        raise InvariantError(f"the receipt of entry {state.index} had been superseded")
    hold, line, moved = found
    if hold.account.id != entry.hold_account or moved != (entry.paid_ucr, entry.fee_ucr):
        raise InvariantError(f"entry {state.index} moves {entry.paid_ucr} + {entry.fee_ucr} µcr; {moved} are due")
    batch = line.node.batches.get(hold.hold.model) or _open_batch(state, line, hold)
    if batch.account.id != entry.batch_account:
        raise InvariantError(f"entry {state.index} pays batch {entry.batch_account}, not {batch.account.id}")
    move(state, hold, line, batch, moved, receipt.units - line.units)
    _record(state, hold, line, receipt, packed)


def move(state: State, hold: LiveHold, line: HoldLine, batch: Batch, moved: Settlement, units: int) -> None:
    """What a settlement of `units` more does to everything but its line."""
    paid_ucr, fee_ucr = moved
    state.move(hold.account, batch.account, paid_ucr, Code.PAY)
    state.move(hold.account, state.accounts[BURNED], fee_ucr, Code.FEE)
    batch.units += units
    if hold.hold.weight == 0:
        batch.free_units += units
        line.node.free_units = min(line.node.free_units + units, MAX_COUNT)
        state.touch(line.node)
    state.touch(batch)
    row = (state.index, hold.account.id, line.node.id, batch.account.id, units, paid_ucr, fee_ucr)
    state.add("settlements", row)


def _record(state: State, hold: LiveHold, line: HoldLine, receipt: Receipt, packed: bytes) -> None:
    """Make this receipt the newest of its line."""
    # Other threads look on. Who sees the new `seq` must not take it for what an older entry recorded, and who sees a
    # meter must see the span that it is of.
    line.receipt_index, line.totals = state.index, packed[TOTALS_AT]
    line.seq, line.units, line.final = receipt.seq, receipt.units, receipt.final
    line.start, line.stop, line.profile, line.work = receipt.start, receipt.stop, receipt.profile, receipt.work
    if line.meter is None:
        line.meter = _meter(state, hold, receipt)
    state.touch(line)


def _open_batch(state: State, line: HoldLine, hold: LiveHold) -> Batch:
    """It keeps the policy in force when its first receipt came."""
    account = state.open_account(AccountKind.BATCH)
    batch = Batch(account, line.node, hold.hold.model, state.rules, state.time_ms)
    state.batches[account.id] = batch
    line.node.batches[hold.hold.model] = batch
    return batch
