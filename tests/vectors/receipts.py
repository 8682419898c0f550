"""Vectors of receipts, and of which may follow which."""

import hashlib
from dataclasses import replace

import edwards
from cases import NODE, Json, flip, put, refused
from nectar_protocol import receipt as receipts
from nectar_protocol.announcement import Profile
from nectar_protocol.identity import Identity
from nectar_protocol.metering import units
from nectar_protocol.receipt import Receipt, SignedReceipt, Work
from nectar_protocol.record import MAX_COUNT
from objects import ENTRY, HOLD, OTHER, POLICY, SESSION, WORK, twin, view

PLAIN = Receipt(
    HOLD.id, NODE.public, SESSION.public, hashlib.sha256(b"commitment").digest(), 1, 0, 6, Profile.BF16, False, WORK,
    units(WORK, 0, 6, Profile.BF16, ENTRY, POLICY),
)  # fmt: skip
RECEIPT_FIELDS = {
    "magic": 0, "hold": 8, "server": 40, "session": 72, "commitment": 104, "seq": 136, "start": 144, "stop": 146,
    "profile": 148, "flags": 150, "reserved_tokens": 152, "prefill_tokens": 160, "prefill_context": 168,
    "decode_tokens": 176, "decode_context": 184, "backward_tokens": 192, "backward_context": 200, "units": 208,
    "server_signature": 216, "session_signature": 280,
}  # fmt: skip


def receipt_view(r: Receipt) -> Json:
    names = ("hold", "server", "session", "commitment", "start", "stop", "profile", "final", "work")
    return {name: view(getattr(r, name)) for name in names} | {"seq": str(r.seq), "units": str(r.units)}


def sign_body(body: bytes, server: Identity = NODE, session: Identity = SESSION) -> bytes:
    return body + server.sign(receipts.SERVER_ROLE, body) + session.sign(receipts.SESSION_ROLE, body)


def receipt_vectors() -> Json:
    most = Work(*[MAX_COUNT] * 7)
    kinds = {f"profile {profile.name}": replace(PLAIN, profile=profile) for profile in Profile}
    kinds |= {f"receipt {n}": replace(PLAIN, seq=n, work=Work(n, n, n, n, n), units=n) for n in range(2, 10)}
    cases = {
        "a running receipt": PLAIN,
        "a final receipt": replace(PLAIN, final=True),
        "opened, nothing done": replace(PLAIN, work=Work(192), units=0),
        "free of everything": replace(PLAIN, work=Work(), units=0),
        "every minimum": replace(PLAIN, hold=bytes(32), commitment=bytes(32), stop=1, profile=Profile(0), work=Work()),
        "every maximum": replace(
            replace(PLAIN, hold=b"\xff" * 32, commitment=b"\xff" * 32, seq=MAX_COUNT, start=9_999, stop=10_000),
            profile=Profile.NF4, final=True, work=most, units=MAX_COUNT,
        ),
        "training": replace(PLAIN, work=Work(512, 512, 130_816, 0, 0, 512, 130_816)),
        **kinds,
    }  # fmt: skip
    body = PLAIN.body()
    packed = sign_body(body)
    wide = (2**53).to_bytes(8, "big")

    def at(field: str, new: bytes) -> bytes:
        return sign_body(put(body, RECEIPT_FIELDS[field], new))

    small = edwards.small_order_encodings()[0]
    last = {"reserved_tokens", "prefill_tokens", "prefill_context", "decode_tokens", "decode_context", "units"}
    signed = {"hold", "server", "session", "commitment", "server_signature", "session_signature"} | last
    forged = {
        f"one byte wrong in {name}": flip(packed, offset + 7 if name in last else offset)
        for name, offset in RECEIPT_FIELDS.items()
        if name in signed
    }
    forged |= {
        "one byte wrong in S of the server": flip(packed, 248),
        "one byte wrong in S of the session": flip(packed, 312),
        "another seq": put(packed, 136, (2).to_bytes(8, "big")),
        "another span": put(packed, 146, (7).to_bytes(2, "big")),
        "another profile": put(packed, 148, b"\0\0"),
        "made final by nobody": put(packed, 150, b"\0\1"),
        "S + L in the server's signature": twin(packed, 216),
        "S + L in the session's signature": twin(packed, 280),
        "the two signatures exchanged": body + packed[280:] + packed[216:280],
        "the server's signature twice": body + packed[216:280] * 2,
        "signed by another server": sign_body(body, server=OTHER),
        "signed by another session": sign_body(body, session=OTHER),
        "signed without a role": body + NODE.sign(b"", body) + SESSION.sign(b"", body),
        "a server key of small order, R the same, S 0": put(put(packed, 40, small), 216, small + bytes(32)),
        "a session key of small order, R the same, S 0": put(put(packed, 72, small), 280, small + bytes(32)),
    }  # fmt: skip
    bad = {
        "empty": b"",
        "343 bytes": packed[:-1],
        "345 bytes": packed + b"\0",
        "the body alone": body,
        "one byte wrong in the magic": flip(packed, 0),
        "the magic of a version 2, signed": at("magic", b"NECRCPT2"),
        "seq 0, signed": at("seq", bytes(8)),
        "seq 2^53, signed": at("seq", wide),
        "units 2^53, signed": at("units", wide),
        "units 2^64 − 1, signed": at("units", b"\xff" * 8),
        "reserved 2^53, signed": at("reserved_tokens", wide),
        "prefill context 2^53, signed": at("prefill_context", wide),
        "an empty span, signed": at("stop", bytes(2)),
        "a reversed span, signed": at("start", b"\0\7"),
        "block 10,001, signed": at("stop", (10_001).to_bytes(2, "big")),
        "profile 5, signed": at("profile", b"\0\5"),
        "flag 2, signed": at("flags", b"\0\2"),
        "flag 256, signed": at("flags", b"\1\0"),
        "positions of no tokens, signed": at("backward_context", b"\0\0\0\0\0\0\0\1"),
        "server and session the same, signed": at("session", NODE.public),
    }
    later = replace(PLAIN, seq=2, work=PLAIN.work._replace(decode_tokens=65, decode_context=10_400), units=PLAIN.units)
    orders = {
        "more of the same": (later, True),
        "the same totals, final": (replace(PLAIN, seq=9, final=True), True),
        "the same seq": (replace(later, seq=1), False),
        "another hold": (replace(later, hold=bytes(32)), False),
        "another session": (replace(later, session=OTHER.public), False),
        "another span": (replace(later, stop=5), False),
        "another profile": (replace(later, profile=Profile.F32), False),
        "units fall": (replace(later, units=PLAIN.units - 1), False),
        **{
            f"{name} fall": (replace(later, work=later.work._replace(**{name: value - 1})), False)
            for name, value in PLAIN.work._asdict().items()
            if value
        },
    }
    return {
        "server_role": receipts.SERVER_ROLE.hex(),
        "session_role": receipts.SESSION_ROLE.hex(),
        "valid": [
            {"name": name, "fields": receipt_view(r)}
            | {"packed": SignedReceipt(r, r.sign(NODE), r.sign(SESSION)).pack().hex()}
            for name, r in cases.items()
        ],
        "invalid": refused(forged, "packed", "SignatureError") + refused(bad, "packed"),
        "orders": [
            {"name": name, "previous": PLAIN.body().hex(), "new": new.body().hex(), "follows": follows}
            for name, (new, follows) in orders.items()
        ]
        + [{"name": "after a final one", "follows": False}
           | {"previous": replace(PLAIN, final=True).body().hex(), "new": later.body().hex()}],
    }  # fmt: skip
