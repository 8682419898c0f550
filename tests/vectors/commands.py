"""Vectors of commands: one of each kind at least."""

import hashlib
from dataclasses import replace

import edwards
from cases import NODE, Json, flip, put, refused
from nectar_protocol import commands as c
from nectar_protocol.announcement import Profile
from nectar_protocol.command import Command
from nectar_protocol.identity import Identity
from nectar_protocol.record import MAX_COUNT
from objects import ENTRY, GENESIS, HOLD, LEDGER, LINES, NOW_MS, OPEN, OTHER, PAYER, POLICY, SESSION, twin, view

HEAD = (GENESIS, bytes(range(16)), NOW_MS + 60_000)
OPERATOR, AUDITOR = OTHER, LEDGER
COMMANDS: list[tuple[str, Command, tuple[Identity, ...]]] = [
    ("open a hold", OPEN, (PAYER,)),
    ("open a free hold", replace(OPEN, payer=SESSION.public, weight=0), (SESSION,)),
    ("extend a hold", c.ExtendHold(*HEAD, PAYER.public, HOLD.id, NOW_MS + 1_000_000, 2, LINES), (PAYER,)),
    ("close a hold", c.CloseHold(*HEAD, SESSION.public, HOLD.id), (SESSION,)),
    ("bind a payee", c.BindPayee(*HEAD, NODE.public, PAYER.public), (NODE, PAYER)),
    ("change a payee", c.ChangePayee(*HEAD, NODE.public, PAYER.public, OTHER.public), (PAYER, OTHER)),
    ("fund a purse", c.FundPurse(*HEAD, PAYER.public, 10_000_000), (PAYER,)),
    ("empty a purse", c.WithdrawPurse(*HEAD, PAYER.public, MAX_COUNT), (PAYER,)),
    ("grant", c.Grant(*HEAD, OPERATOR.public, PAYER.public, 1), (OPERATOR,)),
    ("name an auditor", c.SetKey(*HEAD, OPERATOR.public, AUDITOR.public, c.KeyPurpose(5), c.KeyState(1)), (OPERATOR,)),
    ("publish a policy", c.PublishPolicy(*HEAD, OPERATOR.public, POLICY), (OPERATOR,)),
    ("publish a model", c.PublishModel(*HEAD, OPERATOR.public, ENTRY), (OPERATOR,)),
    ("a verdict", c.Verdict(*HEAD, AUDITOR.public, NODE.public, 7, HOLD.id, 0, 6, Profile.BF16, c.Outcome.PASSED, 192,
                            9_800, 15_000, hashlib.sha256(b"evidence").digest()), (AUDITOR,)),
    ("a dispute", c.Dispute(*HEAD, SESSION.public, HOLD.id, NODE.public, hashlib.sha256(b"evidence").digest()),
     (SESSION,)),
]  # fmt: skip


def command_vectors() -> Json:
    packed = {name: command.signed(*signers).pack() for name, command, signers in COMMANDS}
    small = edwards.small_order_encodings()[0]
    forged = {f"{name}: one byte wrong in the id": flip(data, 40) for name, data in packed.items()}
    forged |= {f"{name}: one byte wrong in the last S": flip(data, -32 % len(data)) for name, data in packed.items()}
    fund, bind = packed["fund a purse"], packed["bind a payee"]
    body = COMMANDS[6][1].pack()
    forged |= {
        "another ledger": flip(fund, 8),
        "another expiry": flip(fund, 63),
        "another amount": flip(fund, 103),
        "signed by another key": body + OTHER.sign(b"nectar/fund-purse/v1/account\n", body),
        "signed for another kind": body + PAYER.sign(b"nectar/withdraw-purse/v1/account\n", body),
        "S + L, the malleable twin": twin(fund, len(body)),
        "two signatures exchanged": bind[:-128] + bind[-64:] + bind[-128:-64],
        "one's signature in both places": bind[:-64] + bind[-128:-64],
        "a signer's key of small order, R the same, S 0": body[:64] + small + body[96:] + small + bytes(32),
    }
    weak = c.SetKey(*HEAD, OPERATOR.public, small, c.KeyPurpose(5), c.KeyState(1)).signed(OPERATOR).pack()
    mixed = edwards.encode(edwards.add(edwards.multiply(edwards.BASE, 5), edwards.ORDER_8))
    mixed_key = c.SetKey(*HEAD, OPERATOR.public, mixed, c.KeyPurpose(5), c.KeyState(1)).signed(OPERATOR).pack()
    bad = {f"{name}: one byte short": data[:-1] for name, data in packed.items()}
    bad |= {f"{name}: one byte long": data + b"\0" for name, data in packed.items()}
    bad |= {
        "empty": b"",
        "an unknown magic": put(fund, 0, b"NECWHAT1"),
        "the magic of a version 2": put(fund, 0, b"NECFUND2"),
        "an amount of 0": put(fund, 96, bytes(8)),
        "an amount of 2^53": put(fund, 96, (2**53).to_bytes(8, "big")),
        "expires at 2^53": put(fund, 56, (2**53).to_bytes(8, "big")),
        "one signature where two are due": bind[:-64],
        "a free hold with a payer": put(packed["open a hold"], 200, b"\0"),
        "a paid hold asked for by its session": put(packed["open a free hold"], 200, b"\1"),
        "a node that is its own payee": put(bind, 96, NODE.public),
        "a new payee that is the node": put(packed["change a payee"], 128, NODE.public),
        "a new payee that is the old one": put(packed["change a payee"], 128, PAYER.public),
        "key purpose 0": put(packed["name an auditor"], 128, b"\0"),
        "key purpose 7": put(packed["name an auditor"], 128, b"\7"),
        "key state 3": put(packed["name an auditor"], 129, b"\3"),
        "outcome 5": put(packed["a verdict"], 174, b"\5"),
        "a verdict on an empty span": put(packed["a verdict"], 170, bytes(2)),
        "a policy with another magic inside": flip(packed["publish a policy"], 96),
        "33 KiB": packed["open a hold"] + bytes(33 << 10),
    }
    weak_keys = {"a key of small order": weak, "a key of mixed order": mixed_key}
    return {
        "valid": [
            {
                "name": name,
                "kind": command.NAME,
                "fields": view(command),
                "roles": [role.hex() for role in command.signers()],
                "body_hash": command.body_hash.hex(),
                "packed": packed[name].hex(),
            }
            for name, command, _ in COMMANDS
        ],
        "invalid": refused(forged, "packed", "SignatureError")
        + refused(weak_keys, "packed", "IdentityError")
        + refused(bad, "packed"),
    }
