"""What a receipt commits to: a running hash over everything that a node was asked and what it answered.

    digest     = SHA-256("nectar/activation/v1\\n" | salt 32 | bytes of one row's vector at one position)
    value_0    = SHA-256("nectar/commitment/v1\\n" | hold 32 | server 32 | session 32 | start 2, stop 2 | profile 2 |
                         dtype 2 | SHA-256(salt) 32)
    value_n    = SHA-256("nectar/column/v1\\n" | value_(n−1) | number 8 | kind 1 | zero 1 | rows 2 | position 4 |
                         adapter 32 | reorder count 2 | reorder 2* | (input digest 32, output digest 32)*)

A step is hashed column by column: one position of all rows. So steps cut in any way, a replay merged into one prefill
among them, give the same value. `number` counts the tokens (rows × positions) hashed before, which is where a receipt's
token counts stand; thus a session goes on from its last receipt. The salt is the session's, known to its client and
nodes: it keeps a short prompt from being guessed, and is the same for all nodes, so that one's output digests are the
next one's input digests.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from nectar_protocol.announcement import MAX_BLOCKS, Profile
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PublicKey
from nectar_protocol.record import MAX_COUNT

ACTIVATION_ROLE = b"nectar/activation/v1\n"
START_ROLE = b"nectar/commitment/v1\n"
COLUMN_ROLE = b"nectar/column/v1\n"
SIZE = 32
SALT_SIZE = 32
MAX_ROWS = 512
MAX_POSITION = 2**32 - 1
NO_ADAPTER = bytes(32)
COLUMN = struct.Struct(">32sQBxHI32sH")

Digests = Sequence[Sequence[bytes]]  # [rows][positions]


class StepKind(IntEnum):
    """What is done with a column. Whether a forward was a prefill or a decode is in the counts, not in the hash."""

    FORWARD = 1
    BACKWARD = 2


@dataclass(frozen=True)
class StepHeader:
    """What a step asked beside its vectors.

    It begins at `position` of every row. `reorder` names, for each row, the row whose past it continues, before the
    step; the identity is no reorder. `adapter` is the 32 bytes that name a LoRA adapter, zero for none.
    """

    kind: StepKind
    position: int
    reorder: tuple[int, ...] = ()
    adapter: bytes = NO_ADAPTER


def digests(salt: bytes, data: bytes, rows: int, positions: int) -> list[list[bytes]]:
    """Digests [rows][positions] of hidden states [rows, positions, width], given as their bytes in that order.

    Raises MalformedError for a salt of another length or data that do not divide so.
    """
    if len(salt) != SALT_SIZE:
        raise MalformedError(f"a salt of {len(salt)} bytes; it has {SALT_SIZE}")
    vectors = rows * positions
    if rows <= 0 or positions <= 0 or not data or len(data) % vectors:
        raise MalformedError(f"{len(data)} bytes are not the vectors of {rows} rows at {positions} positions")
    size, view, salted = len(data) // vectors, memoryview(data), hashlib.sha256(ACTIVATION_ROLE + salt)

    def digest(number: int) -> bytes:
        state = salted.copy()
        state.update(view[number * size : (number + 1) * size])
        return state.digest()

    return [[digest(row * positions + position) for position in range(positions)] for row in range(rows)]


@dataclass(frozen=True)
class Commitment:
    """The running hash, and how many tokens it covers. Each step gives a new one; nothing is changed in place."""

    value: bytes
    number: int = 0

    @classmethod
    def begin(
        cls, hold: bytes, server: PublicKey, session: PublicKey, start: int, stop: int, profile: Profile, dtype: int,
        salt: bytes,
    ) -> "Commitment":  # fmt: skip
        """Before the first step of a session on a node. `dtype` is the wire's code of the vectors. Raises
        MalformedError.
        """
        if not len(hold) == len(server) == len(session) == len(salt) == 32:
            raise MalformedError("hold, server, session and salt are 32 bytes each")
        if not 0 <= start < stop <= MAX_BLOCKS or not 0 <= dtype < 1 << 16:
            raise MalformedError(f"[{start}, {stop}) is not a span of blocks, or {dtype} is no dtype's code")
        head = struct.pack(">32s32s32sHHHH", hold, server, session, start, stop, profile, dtype)
        return cls(hashlib.sha256(START_ROLE + head + hashlib.sha256(salt).digest()).digest())

    def after(self, header: StepHeader, inputs: Digests, outputs: Digests) -> "Commitment":
        """The commitment after one step of one or more positions. Raises MalformedError."""
        rows, positions = _check_step(self, header, inputs, outputs)
        reorder = header.reorder if header.reorder != tuple(range(rows)) else ()
        value, number = self.value, self.number
        for column in range(positions):
            head = COLUMN.pack(value, number, header.kind, rows, header.position + column, header.adapter, len(reorder))
            order = struct.pack(f">{len(reorder)}H", *reorder)
            pairs = b"".join(inputs[row][column] + outputs[row][column] for row in range(rows))
            value = hashlib.sha256(COLUMN_ROLE + head + order + pairs).digest()
            number, reorder = number + rows, ()
        return Commitment(value, number)


def _check_step(before: Commitment, header: StepHeader, inputs: Digests, outputs: Digests) -> tuple[int, int]:
    """(rows, positions) of a step. Raises MalformedError."""
    rows, positions = len(inputs), len(inputs[0]) if inputs else 0
    if not 0 < rows <= MAX_ROWS or not positions or len(outputs) != rows:
        raise MalformedError(f"a step has 1 to {MAX_ROWS} rows and at least a position, the same in and out")
    for row in (*inputs, *outputs):
        if len(row) != positions or any(len(digest) != SIZE for digest in row):
            raise MalformedError(f"every row of a step has {positions} digests of {SIZE} bytes")
    if not 0 <= header.position <= MAX_POSITION - positions + 1 or len(header.adapter) != len(NO_ADAPTER):
        raise MalformedError(f"a step at position {header.position}, or an adapter's name that is not 32 bytes")
    if header.reorder and (len(header.reorder) != rows or not all(0 <= row < rows for row in header.reorder)):
        raise MalformedError(f"a reorder of {len(header.reorder)} entries in a session of {rows} rows")
    if len(before.value) != SIZE or not 0 <= before.number <= MAX_COUNT - rows * positions:
        raise MalformedError(f"a commitment has {SIZE} bytes and covers at most {MAX_COUNT} tokens")
    return rows, positions
