"""The people, the policy, the model and the session of the vectors of a ledger's objects, and their form in JSON."""

import hashlib
from dataclasses import fields, replace
from typing import Any

import edwards
from cases import NODE, put
from nectar_protocol import commands as c
from nectar_protocol.announcement import Profile
from nectar_protocol.hold import Line, sorted_lines
from nectar_protocol.identity import Identity
from nectar_protocol.modelentry import AuditState, ModelEntry
from nectar_protocol.policy import EXAMPLE
from nectar_protocol.receipt import Work
from nectar_protocol.record import Record, Uint
from nectar_protocol.reference import Attention, reference_flops

SESSION, PAYER, LEDGER, OTHER = (Identity.from_seed(bytes([n]) * 32) for n in (1, 2, 3, 4))
GENESIS, MODEL = hashlib.sha256(b"genesis").digest(), hashlib.sha256(b"model").digest()
NOW_MS = 1_767_225_600_000

POLICY = EXAMPLE
FULL = reference_flops(500_000_000, Attention(40, 128, 128))
WINDOWED = replace(FULL, window=1024)
ENTRY = ModelEntry(MODEL, 1, AuditState.SHADOW, (FULL, WINDOWED, WINDOWED, FULL, WINDOWED, WINDOWED))
LINES = sorted_lines([Line(NODE.public, 6_100_000), Line(OTHER.public, 1)])
WORK = Work(192, 128, 8_128, 64, 10_208, 0, 0)
BOTH = frozenset({Profile.F32, Profile.BF16})


def view(value: Any, eight_bytes: bool = False) -> Any:
    """A value as the JSON of the vectors has it."""
    match value:
        case bytes():
            return value.hex()
        case frozenset():
            return sorted(int(item) for item in value)
        case Work():
            return {name: str(total) for name, total in value._asdict().items()}
        case tuple():
            return [view(item) for item in value]
        case Record():
            wide = {name: isinstance(codec, Uint) and codec.size == 8 for name, codec in value.layout()}
            return {field.name: view(getattr(value, field.name), wide[field.name]) for field in fields(value)}
        case bool() | str():
            return value
    return str(int(value)) if eight_bytes else int(value)


OPEN = c.OpenHold(
    GENESIS, bytes(range(16)), NOW_MS + 60_000, PAYER.public, SESSION.public, MODEL, POLICY.id, NOW_MS + 900_000, 1,
    BOTH, LINES,
)  # fmt: skip
HOLD = OPEN.hold()


def twin(packed: bytes, offset: int) -> bytes:
    """The same with S + L in the signature at `offset`."""
    s = int.from_bytes(packed[offset + 32 : offset + 64], "little")
    return put(packed, offset + 32, (s + edwards.L).to_bytes(32, "little"))
