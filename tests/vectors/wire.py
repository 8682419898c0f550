"""Writes the frames of wire version 3: `python tests/vectors/wire.py [FILE]`, by default over the committed ones.

Nodes of this version are out there: what is written here once must be read for as long as the version is spoken, so a
new layout is a new version and a new file; those before it are beside it. Byte strings are hex, integers are decimal
strings.
"""

import json
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import torch
from nectar_protocol.address import Address
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.hold import Hold, Line, SignedHold
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_protocol.opening import HistoryRequest
from nectar_protocol.receipt import SERVER_ROLE, SESSION_ROLE, Receipt, Work
from nectar_swarm.bills import Bill, BilledStep, Countersignature
from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Error, ErrorCode, Hello, Neighbours, Open, Ping, Routed, Step
from nectar_swarm.past import HistoryCall, Past
from nectar_swarm.status import Status

VERSION = 3
FILE = Path(__file__).with_name(f"wire_v{VERSION}.json")

PREV, NEXT, RELAY = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
ADDRESSES = (
    Address(ip_address("192.0.2.1"), 31330),
    Address(ip_address("2001:db8::1"), 31330),
    Address(ip_address("192.0.2.2"), 443, RELAY.public),
)
MIDDLE = Neighbours(3, PREV.peer_id, NEXT.peer_id, ADDRESSES, 17, 12)
ALONE = Neighbours(1, None, None)
MODEL = ModelID(bytes(range(32)))
WORK = Work(24, 4, 2, 2, 4)
RECEIPT = Receipt(
    bytes(range(32)), NEXT.public, PREV.public, bytes(range(32, 64)), 1, 8, 24, Profile.BF16, False, WORK, 7
)  # fmt: skip
DIGESTS = [[bytes([row, position]) * 16 for position in range(2)] for row in range(2)]
STEPS = (
    BilledStep(1, 1, StepHeader(StepKind.FORWARD, 0), DIGESTS, DIGESTS[::-1]),
    BilledStep(2, 4, StepHeader(StepKind.FORWARD, 2, (1, 0)), DIGESTS, DIGESTS),
)
BILL = Bill(2, STEPS, RECEIPT, NEXT.sign(SERVER_ROLE, RECEIPT.body()))
REQUEST = HistoryRequest(NEXT.public, bytes(range(32)), PREV.public, 1_767_225_600_000)
CALL = HistoryCall(REQUEST, REQUEST.sign(PREV))
HOLD = Hold(
    bytes(range(32)), bytes(range(32, 64)), PREV.public, bytes(32), bytes(range(64, 96)), 1_767_225_600_000, 2, 4,
    frozenset({Profile.F32, Profile.BF16}), (Line(NEXT.public, 1_000_000),),
).signed(RELAY)  # fmt: skip
NUMBERS = torch.tensor([[[1.0, -2.5], [0.0, 1024.0]], [[-0.125, 3.0], [65504.0, 0.5]]])

MESSAGES: list[tuple[str, int, Kind, Any]] = [
    ("greeting", 0, Kind.HELLO, Hello(1, 3)),
    ("ping", 0, Kind.PING, Ping(0xFEDCBA98, 250)),
    ("pong", 0, Kind.PONG, Ping(1, 0)),
    ("open, alone in its route", 1, Kind.OPEN, Open(MODEL, 0, 8, 4096, torch.float32, (0,), ALONE)),
    (
        "open, two padded rows, in the middle of a route",
        (1 << 64) - 1,
        Kind.OPEN,
        Open(MODEL, 8, 24, 100, torch.bfloat16, (0, 7), MIDDLE, b"hold"),
    ),
    ("reroute", 5, Kind.REROUTE, MIDDLE),
    ("routed", 5, Kind.ROUTED, Routed(3)),
    ("step, f32", 5, Kind.STEP, Step(1, 1, 0, NUMBERS)),
    ("step, bf16, merged from several", 5, Kind.STEP, Step(2, 9, 7, NUMBERS.bfloat16())),
    ("step, f16, reordered", 5, Kind.STEP, Step(10, 10, 9, NUMBERS.half(), (1, 0))),
    ("close", 5, Kind.CLOSE, None),
    ("error", 5, Kind.ERROR, Error(ErrorCode.FAILED, "not a number…")),
    ("error, to be tried again later", 5, Kind.ERROR, Error(ErrorCode.BUSY, "full", 1, retry_after_ms=2500)),
    ("error about a neighbour", 5, Kind.ERROR, Error(ErrorCode.UNREACHABLE, "no route", 3, NEXT.peer_id)),
    ("ask", 0, Kind.ASK, None),
    (
        "status",
        0,
        Kind.STATUS,
        Status(100, 2000, 3, 4, 80, "a node", "a model", "a GPU", "bf16", "0.1.0", 1500, 21000, bytes(range(32))),
    ),
    ("bill", 5, Kind.BILL, BILL),
    ("hold", 5, Kind.HOLD, HOLD),
    ("history asked for", 5, Kind.HISTORY, CALL),
    ("a part of a history", 5, Kind.PAST, Past(2, 1, Step(1, 1, 0, NUMBERS))),
    ("a history of nothing", 5, Kind.PAST, Past(0, 0, None)),
    ("countersignature", 5, Kind.COUNTERSIGN, Countersignature(1, PREV.sign(SESSION_ROLE, RECEIPT.body()))),
]


def plain(value: Any) -> Any:
    """A field as any language can read it."""
    match value:
        case None:
            return None
        case bytes():
            return value.hex()
        case Work():
            return {name: str(total) for name, total in value._asdict().items()}
        case frozenset():
            return sorted(str(int(item)) for item in value)
        case tuple() | list():
            return [plain(item) for item in value]
        case torch.Tensor():
            return [f"{number:g}" for number in value.flatten().tolist()]
        case torch.dtype():
            return str(value).removeprefix("torch.")
        case ErrorCode():
            return value.name
        case (
            Neighbours() | Hello() | Ping() | Open() | Routed() | Step() | Error() | Status()
            | Bill() | BilledStep() | StepHeader() | Receipt() | Countersignature()
            | SignedHold() | Hold() | Line() | HistoryCall() | HistoryRequest() | Past()
        ):  # fmt: skip
            return {name: plain(item) for name, item in vars(value).items()}
    return str(value)


def pack(message: Any) -> bytes:
    match message:
        case None:
            return b""
        case Error() | Status():
            return message.pack(VERSION)
    return bytes(message.pack())


def case(name: str, session: int, kind: Kind, message: Any) -> dict[str, Any]:
    [frame] = encode(session, kind, pack(message))
    return {
        "name": name, "session": str(session), "kind": kind.name, "frame": frame.hex(), "fields": plain(message),
    }  # fmt: skip


def vectors() -> dict[str, Any]:
    return {"version": VERSION, "frames": [case(*message) for message in MESSAGES]}


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n")
