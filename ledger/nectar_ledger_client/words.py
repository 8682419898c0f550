"""What an entry of a ledger's log says, for people."""

from datetime import UTC, datetime
from enum import IntEnum

from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.entries import (
    BatchClosed,
    BatchOutcome,
    CloseReason,
    EmissionTo,
    Emitted,
    EpochClosed,
    Genesis,
    HoldClosed,
    HoldOpened,
    Resumed,
    Settled,
    VerdictSealed,
)
from nectar_protocol.entry import Entry, entry_hash, pack_entry
from nectar_protocol.identity import peer_id
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.money import UCR_PER_CREDIT
from nectar_protocol.policy import Policy

WHY = {
    CloseReason.FINAL: "every line had its final receipt",
    CloseReason.ASKED: "its session asked for it",
    CloseReason.EXPIRED: "its grace was over",
}


def describe(entry: Entry) -> str:
    """One sentence: when, and what."""
    return f"At {when(entry.time_ms)} {_what(entry)}."


def when(time_ms: int) -> str:
    """A Unix time in ms as UTC, to the second."""
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms after 1970"


def credits(ucr: int) -> str:
    """Any sum of µcr, exact: 1500000 are '1.5 credits'."""
    whole, rest = divmod(ucr, UCR_PER_CREDIT)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".") + " credits"


def _what(entry: Entry) -> str:
    match entry.body:
        case Settled() as settled:
            return _settled(settled)
        case HoldOpened(signed):
            hold = signed.hold
            units, nodes = sum(line.cap_units for line in hold.lines), _count(len(hold.lines), "node")
            return (
                f"the ledger promised hold {hold.id.hex()}, revision {hold.revision}, to session {hold.session.hex()}: "
                f"up to {units} units of weight {hold.weight} on {nodes} until {when(hold.expires_ms)}"
            )
        case HoldClosed() as closed:
            done = "was closed" if closed.whole else "gave back what its final receipts left"
            back = f"{credits(closed.released_ucr)} went back to the pool, because {WHY[closed.reason]}"
            return f"hold {closed.hold.hex()} {done}: {back}"
        case VerdictSealed():
            return "an auditor gave a verdict, which is sealed until its batch closes"
        case BatchClosed() as batch:
            done = "released to its node's payee" if batch.outcome is BatchOutcome.RELEASED else "burned"
            verdicts = _count(len(batch.verdicts), "verdict")
            return f"batch {batch.account} was {done}: {credits(batch.amount_ucr)}, after {verdicts}"
        case Emitted() as emitted:
            to = "payee" if emitted.to is EmissionTo.PAYEES else "auditor's purse"
            amount = credits(sum(share.amount_ucr for share in emitted.shares))
            return f"epoch {emitted.epoch} emitted {amount} to {_count(len(emitted.shares), to)}"
        case EpochClosed() as epoch:
            made, burned = credits(epoch.emitted_ucr), credits(epoch.burned_ucr)
            return f"epoch {epoch.number} closed: {made} had been emitted in all and {burned} burned"
        case Resumed(down_from_ms):
            return f"the ledger came back, having been down since {when(down_from_ms)}"
        case Genesis() as genesis:
            ledger = entry_hash(pack_entry(entry.time_ms, genesis)).hex()
            return f"the ledger {genesis.network} began, with the ID {ledger}"
        case SignedCommand(command):
            return f"{_signers(command)} signed the command {command.NAME}: {_fields(command)}"


def _settled(settled: Settled) -> str:
    receipt = settled.receipt.receipt
    final = "final receipt" if receipt.final else "receipt"
    return (
        f"node {peer_id(receipt.server)} had done {receipt.units} units in blocks {receipt.start}:{receipt.stop} under "
        f"hold {receipt.hold.hex()}, as it and session {receipt.session.hex()} both signed in {final} {receipt.seq}; "
        f"this moved {credits(settled.paid_ucr)} to the node's batch {settled.batch_account} and burned "
        f"{credits(settled.fee_ucr)}"
    )


def _signers(command: Command) -> str:
    return " and ".join(f"{name} {getattr(command, name).hex()}" for name in command.SIGNERS)


def _fields(command: Command) -> str:
    common = {name for name, _ in Command.layout()} | set(command.SIGNERS)
    own = (name for name, _ in command.layout() if name not in common)
    return ", ".join(f"{name} = {_value(getattr(command, name))}" for name in own) or "nothing else"


def _value(value: object) -> str:
    match value:
        case bytes():
            return value.hex()
        case IntEnum():
            return value.name.lower().replace("_", "-")
        case Policy() | ModelEntry():
            return f"version {value.version}, {value.id.hex()}"
    return str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
