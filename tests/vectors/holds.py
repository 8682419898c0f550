"""Vectors of holds and of their revisions."""

import hashlib
from dataclasses import replace

from cases import Json, flip, put, refused
from nectar_protocol import receipt as receipts
from nectar_protocol.announcement import Profile
from nectar_protocol.hold import ROLE as HOLD_ROLE
from nectar_protocol.hold import Line, sorted_lines
from nectar_protocol.identity import Identity
from nectar_protocol.record import MAX_COUNT
from objects import HOLD, LEDGER, LINES, MODEL, OTHER, PAYER, twin, view

HOLD_FIELDS = {
    "ledger": 8, "id": 40, "session": 72, "model": 104, "policy": 136, "expires_ms": 168, "revision": 176,
    "weight": 178, "profiles": 179, "line count": 180, "zero": 182, "line": 184,
}  # fmt: skip


def hold_vectors() -> Json:
    many = sorted_lines(Line(Identity.from_seed(hashlib.sha256(bytes([n])).digest()).public, n + 1) for n in range(256))
    top = replace(HOLD, expires_ms=MAX_COUNT, revision=65_535, weight=8, profiles=frozenset(Profile))
    cases = {
        "two lines": HOLD,
        "one line, weight 0": replace(HOLD, weight=0, lines=LINES[:1]),
        "every maximum": replace(top, lines=(Line(OTHER.public, MAX_COUNT),)),
        "256 lines": replace(HOLD, lines=many),
    }
    body, packed = HOLD.pack(), HOLD.signed(LEDGER).pack()
    one, other = (line.pack() for line in LINES)

    def at(field: str, new: bytes) -> bytes:
        return put(packed, HOLD_FIELDS[field], new)

    bad = {
        "empty": b"",
        "only a signature": packed[-64:],
        "one byte short": packed[:-1],
        "one byte long": packed + b"\0",
        "one byte wrong in the magic": flip(packed, 0),
        "expires at 2^53": at("expires_ms", (2**53).to_bytes(8, "big")),
        "revision 0": at("revision", bytes(2)),
        "weight 3": at("weight", b"\3"),
        "weight 16": at("weight", b"\x10"),
        "no profile": at("profiles", b"\0"),
        "a profile that is none": at("profiles", b"\x21"),
        "no line": body[:180] + bytes(4) + packed[-64:],
        "257 lines": at("line count", b"\1\1"),
        "the line count one too small": at("line count", b"\0\1"),
        "the line count one too large": at("line count", b"\0\3"),
        "not zero behind the line count": at("zero", b"\0\1"),
        "lines in another order": at("line", other + one),
        "a line twice": at("line", one + one),
        "a cap of 0": at("line", put(one, 32, bytes(8))),
        "a cap of 2^53": at("line", put(one, 32, (2**53).to_bytes(8, "big"))),
    }
    one_byte = {
        f"one byte wrong in {field}": flip(packed, offset) for field, offset in HOLD_FIELDS.items()
        if field in ("ledger", "id", "session", "model", "policy")
    }  # fmt: skip
    forged = one_byte | {
        "one byte wrong in the last cap": flip(packed, len(body) - 1),
        "one byte wrong in R": flip(packed, len(body)),
        "one byte wrong in S": flip(packed, len(body) + 32),
        "signed by another key": HOLD.signed(OTHER).pack(),
        "signed in another role": body + LEDGER.sign(receipts.SERVER_ROLE, body),
        "S + L, the malleable twin": twin(packed, len(body)),
    }
    later = replace(HOLD, revision=2)
    more = replace(later, expires_ms=HOLD.expires_ms + 1, lines=(replace(LINES[0], cap_units=MAX_COUNT), *LINES[1:]))
    revisions = {
        "nothing but the revision": (later, True),
        "a cap raised, a later expiry": (more, True),
        "a line added": (replace(later, lines=sorted_lines([*LINES, Line(PAYER.public, 1)])), True),
        "the same revision": (HOLD, False),
        "a line gone": (replace(later, lines=LINES[:1]), False),
        "a cap lowered": (replace(later, lines=tuple(replace(line, cap_units=1) for line in LINES)), False),
        "an earlier expiry": (replace(later, expires_ms=HOLD.expires_ms - 1), False),
        "another weight": (replace(later, weight=2), False),
        "another session": (replace(later, session=OTHER.public), False),
        "other profiles": (replace(later, profiles=frozenset(Profile)), False),
        "another policy": (replace(later, policy=MODEL), False),
    }
    return {
        "role": HOLD_ROLE.hex(),
        "ledger_key": LEDGER.public.hex(),
        "valid": [
            {"name": name, "fields": view(hold), "packed": hold.signed(LEDGER).pack().hex()}
            for name, hold in cases.items()
        ],
        "invalid": refused(forged, "packed", "SignatureError") + refused(bad, "packed"),
        "revisions": [
            {"name": name, "old": HOLD.pack().hex(), "new": new.pack().hex(), "extends": extends}
            for name, (new, extends) in revisions.items()
        ],
    }  # fmt: skip
