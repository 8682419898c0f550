"""Vectors of a ledger's entries: each kind, and what no log may hold."""

import hashlib

from cases import NODE, Json, flip, put, refused
from commands import COMMANDS
from nectar_protocol.command import SignedCommand
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
    Share,
    VerdictSealed,
)
from nectar_protocol.entry import COMMANDS as LOGGED
from nectar_protocol.entry import Body, entry_hash, pack_entry, parse_entry, seal
from nectar_protocol.merkle import leaf_hash
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.record import MAX_COUNT
from objects import HOLD, LEDGER, NOW_MS, OTHER, PAYER, POLICY
from receipts import PLAIN, sign_body

SALT = hashlib.sha256(b"salt").digest()
SIGNED = {name: command.signed(*signers) for name, command, signers in COMMANDS}
REQUEST = SALT + SIGNED["open a hold"].pack()
RECEIPT = SignedReceipt.unpack(sign_body(PLAIN.body()))
ASKED = SIGNED["close a hold"]
VERDICT = SALT + SIGNED["a verdict"].pack()
NODES_SHARE = Share(NODE.public, PAYER.public, 40_000_000, 40_000_000)
AUDITORS_SHARE = Share(OTHER.public, OTHER.public, 0, 500_000)
BOOKS = EpochClosed(7, NOW_MS - 3_600_000, 40_000_000, 50_000_000, 100_000, 34_900_000, 5_000_000, 6_000_000, 4_000_000)
BODIES: dict[str, Body] = {
    "the genesis": Genesis("ledger.example/test", OTHER.public, PAYER.public, LEDGER.public, NODE.public, POLICY),
    "the shortest name and every key the same": Genesis("a", *[OTHER.public] * 4, POLICY),
    "a hold": HoldOpened(HOLD.signed(LEDGER), seal(REQUEST)),
    "a settlement": Settled(8, 9, 3_920_000, 80_000, RECEIPT),
    "a settlement of the largest numbers": Settled(*[MAX_COUNT] * 4, RECEIPT),
    "a settlement of nothing": Settled(0, 0, 0, 0, RECEIPT),
    "a hold that a final receipt closes": HoldClosed(HOLD.id, 8, 1_100_000, CloseReason.FINAL, True),
    "a line given back": HoldClosed(HOLD.id, 8, 1_100_000, CloseReason.ASKED, False, ASKED),
    "a hold that has expired": HoldClosed(HOLD.id, 8, MAX_COUNT, CloseReason.EXPIRED, True),
    "a sealed verdict": VerdictSealed(seal(VERDICT)),
    "a batch released without verdicts": BatchClosed(9, BatchOutcome.RELEASED, 4_900_000),
    "a batch burned": BatchClosed(9, BatchOutcome.BURNED, 4_900_000, ((12, VERDICT), (15, SALT))),
    "an emission to payees": Emitted(7, EmissionTo.PAYEES, (NODES_SHARE,)),
    "an emission to auditors": Emitted(7, EmissionTo.PURSES, (AUDITORS_SHARE, NODES_SHARE)),
    "an epoch": BOOKS,
    "a resume": Resumed(NOW_MS - 5_000),
}
BODIES |= {
    name: signed
    for name, signed in SIGNED.items()
    if any(isinstance(signed.command, kinds) for kinds in LOGGED.values())
}


def fields_of(body: Body) -> Json:
    """As the JSON has them: whole objects packed, in hex."""
    match body:
        case SignedCommand():
            return {"command": body.command.NAME, "packed": body.pack().hex()}
        case Genesis():
            keys = {name: getattr(body, name).hex() for name in ("operator", "publisher", "holds", "log")}
            return {"network": body.network} | keys | {"policy": body.policy.pack().hex()}
        case HoldOpened():
            return {"hold": body.hold.pack().hex(), "seal": body.seal.hex()}
        case Settled():
            amounts = dict(zip(body._fields[:-1], map(str, body[:-1]), strict=True))
            return amounts | {"receipt": body.receipt.pack().hex()}
        case HoldClosed():
            amounts = {"account_number": str(body.account), "released_ucr": str(body.released_ucr)}
            asked = "" if body.asked is None else body.asked.pack().hex()
            return {"hold": body.hold.hex()} | amounts | {"reason": body.reason, "whole": body.whole, "asked": asked}
        case VerdictSealed():
            return {"seal": body.seal.hex()}
        case BatchClosed():
            verdicts = [{"index": str(index), "sealed": sealed.hex()} for index, sealed in body.verdicts]
            head = {"account_number": str(body.account), "outcome": body.outcome, "amount_ucr": str(body.amount_ucr)}
            return head | {"verdicts": verdicts}
        case Emitted():
            return {"epoch": str(body.epoch), "to": body.to, "shares": [share_of(share) for share in body.shares]}
    return {name: str(getattr(body, name)) for name, _ in body.layout()}


def share_of(share: Share) -> Json:
    amounts = {"units": str(share.units), "amount_ucr": str(share.amount_ucr)}
    return {"earner": share.earner.hex(), "account": share.account.hex()} | amounts


def entry_vectors() -> Json:
    packed = {name: pack_entry(NOW_MS, body) for name, body in BODIES.items()}
    return {
        "valid": [
            {
                "name": name,
                "kind": parse_entry(data).kind,
                "time_ms": str(NOW_MS),
                "fields": fields_of(BODIES[name]),
                "packed": data.hex(),
                "sha256": entry_hash(data).hex(),
                "leaf": leaf_hash(data).hex(),
            }
            for name, data in packed.items()
        ],
        "invalid": refused(bad_entries(packed), "packed"),
        "seals": [{"sealed": part.hex(), "seal": seal(part).hex()} for part in (REQUEST, VERDICT, SALT)],
        "invalid_seals": [
            {"name": "one byte wrong in the salt", "sealed": flip(VERDICT, 0).hex(), "error": "ConflictError"},
            {"name": "one byte wrong in the content", "sealed": flip(VERDICT, 40).hex(), "error": "ConflictError"},
            {"name": "one byte of the salt is missing", "sealed": SALT[:-1].hex(), "error": "MalformedError"},
        ],
    }


def bad_entries(packed: dict[str, bytes]) -> dict[str, bytes]:
    """Nothing that a reader would have to guess at."""
    wide = (2**53).to_bytes(8, "big")
    genesis, hold, settle = packed["the genesis"], packed["a hold"], packed["a settlement"]
    closed, asked = packed["a hold that has expired"], packed["a line given back"]
    batch, emission, epoch = packed["a batch burned"], packed["an emission to auditors"], packed["an epoch"]
    bad = {"empty": b"", "a header's 12 bytes less one": settle[:11], "a header alone": settle[:12]}
    for name in ("the genesis", "a hold", "a settlement", "a line given back", "a sealed verdict", "a batch burned",
                 "an emission to auditors", "an epoch", "a resume", "grant"):  # fmt: skip
        data = packed[name]
        bad |= {f"{name}: one byte short": data[:-1], f"{name}: one byte long": data + b"\0"}
        bad |= {f"{name}: one byte wrong in the kind": flip(data, 1)}
    bad |= {
        "format 0": put(settle, 0, b"\0"),
        "format 2": put(settle, 0, b"\2"),
        "kind 0": put(settle, 1, b"\0"),
        "kind 10, which is not built": put(settle, 1, b"\x0a"),
        "kind 22": put(settle, 1, b"\x16"),
        "not zero behind the kind": put(settle, 3, b"\1"),
        "a genesis without a name": genesis[:12] + b"\0" + genesis[32:],
        "a name with a plus": put(genesis, 13, b"+"),
        "a name that is not UTF-8": put(genesis, 13, b"\xff"),
        "a name length one too small": flip(genesis, 12),
        "one byte wrong in the policy's magic": flip(genesis, 32 + 128),
        "one byte wrong in the hold's magic": flip(hold, 14),
        "the hold's length one too large": put(hold, 12, (len(HOLD.signed(LEDGER).pack()) + 1).to_bytes(2, "big")),
        "one byte wrong in the receipt's magic": flip(settle, 44),
        "a hold's account of 2^53": put(settle, 12, wide),
        "a batch's account of 2^53": put(settle, 20, wide),
        "2^53 µcr are paid": put(settle, 28, wide),
        "a fee of 2^53 µcr": put(settle, 36, wide),
        "an account of 2^53": put(closed, 44, wide),
        "2^53 µcr come back": put(closed, 52, wide),
        "reason 0": put(closed, 60, b"\0"),
        "reason 4": put(closed, 60, b"\4"),
        "neither whole nor not": put(closed, 61, b"\2"),
        "asked for, without a command": put(closed, 60, b"\2"),
        "expired, with a command": put(asked, 60, b"\3"),
        "another command than to close": asked[:62] + uint2(packed["fund a purse"][12:]),
        "outcome 0": put(batch, 20, b"\0"),
        "outcome 3": put(batch, 20, b"\3"),
        "a batch with 2^53 µcr": put(batch, 21, wide),
        "a verdict too few": put(batch, 29, b"\0\3"),
        "a verdict too many": put(batch, 29, b"\0\1"),
        "verdicts out of order": put(batch, 31, (16).to_bytes(8, "big")),
        "65 verdicts": batch[:29] + b"\0\x41" + b"".join(n.to_bytes(8, "big") + bytes(2) for n in range(65)),
        "an emission to nobody": put(emission, 20, b"\0"),
        "an emission to others": put(emission, 20, b"\3"),
        "no share": emission[:21] + bytes(2),
        "a share of 2^53 µcr": put(emission, 23 + 72, wide),
        "books that do not add up": put(epoch, 12 + 24, (50_000_001).to_bytes(8, "big")),
        "more is burned than was emitted": put(epoch, 12 + 24, bytes(8)),
        "down since 2^53": put(packed["a resume"], 12, wide),
        "a command in an entry of another kind": put(packed["grant"], 1, b"\x13"),
        "a command that no entry carries": put(settle[:12], 1, b"\x13") + ASKED.pack(),
        "a verdict that is not sealed": put(settle[:12], 1, b"\x07") + SIGNED["a verdict"].pack(),
    }
    return bad


def uint2(data: bytes) -> bytes:
    """Behind its length."""
    return len(data).to_bytes(2, "big") + data
