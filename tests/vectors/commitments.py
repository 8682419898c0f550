"""Vectors of the running hash over steps."""

import hashlib

from cases import NODE, Json
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import Commitment, StepHeader, StepKind, digests
from objects import HOLD, SESSION, view


def wrong_steps(step: Json) -> list[Json]:
    """A step of two rows and one position, made wrong."""
    ins, outs = step["input_digests"], step["output_digests"]
    changes: dict[str, Json] = {
        "no row": {"input_digests": [], "output_digests": []},
        "no position": {"input_digests": [[], []], "output_digests": [[], []]},
        "a row without its output": {"output_digests": outs[:1]},
        "a position without its output": {"output_digests": [outs[0], []]},
        "a digest of 31 bytes": {"input_digests": [ins[0], [ins[1][0][2:]]]},
        "a reorder of one row": {"reorder": [0]},
        "a reorder from a third row": {"reorder": [0, 2]},
        "position 2^32": {"position": 2**32},
        "an adapter's name of 31 bytes": {"adapter": "00" * 31},
    }
    names = ("kind", "position", "reorder", "adapter", "input_digests", "output_digests")
    return [{"name": name} | {key: step[key] for key in names} | change for name, change in changes.items()]


def commitment_vectors() -> Json:
    salt = bytes(range(32))
    begin = Commitment.begin(HOLD.id, NODE.public, SESSION.public, 0, 6, Profile.BF16, 1, salt)
    inputs, outputs = bytes(range(48)), bytes(range(100, 148))  # 2 rows, 3 positions, 8 bytes a vector
    adapter = hashlib.sha256(b"adapter").digest()
    steps = [
        ("three positions at once", StepHeader(StepKind.FORWARD, 0), 3),
        ("a rollback by one, with a reorder", StepHeader(StepKind.FORWARD, 2, (1, 1)), 1),
        ("an adapter", StepHeader(StepKind.FORWARD, 3, (), adapter), 1),
        ("a backward", StepHeader(StepKind.BACKWARD, 0), 3),
    ]
    value, told = begin, []
    for name, header, positions in steps:
        before, after = inputs[: 16 * positions], outputs[: 16 * positions]
        ins, outs = digests(salt, before, 2, positions), digests(salt, after, 2, positions)
        value = value.after(header, ins, outs)
        told.append(
            {
                "name": name,
                "kind": int(header.kind),
                "position": header.position,
                "positions": positions,
                "reorder": list(header.reorder),
                "adapter": header.adapter.hex(),
                "input": before.hex(),
                "output": after.hex(),
                "input_digests": view(tuple(map(tuple, ins))),
                "output_digests": view(tuple(map(tuple, outs))),
                "number": str(value.number),
                "commitment": value.value.hex(),
            }
        )
    return {
        "hold": HOLD.id.hex(),
        "server": NODE.public.hex(),
        "session": SESSION.public.hex(),
        "start": 0,
        "stop": 6,
        "profile": int(Profile.BF16),
        "dtype": 1,
        "salt": salt.hex(),
        "rows": 2,
        "begin": begin.value.hex(),
        "steps": told,
        "invalid": [case | {"error": "MalformedError"} for case in wrong_steps(told[1])],
    }
