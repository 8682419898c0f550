"""Bills: what a node says it did since its last one, and the receipt that it wants signed.

    bill     rows 2 | step count 2 | steps* | receipt's body 216 | server's signature 64
    step     first 4 | last 4 | position 4 | positions 4 | kind 1 | zero 1 | reorder length 2 | reorder 2* |
             input digests 32*, row by row | output digests 32*
    answer   seq 8 | session's signature 64

A bill goes to the client, off the way of any step; the answer comes back when the client has found that what the node
says is what it asked for, and what the node's neighbours say. docs/protocol.md has the rules.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from nectar_protocol.codec import Reader, uint
from nectar_protocol.commitment import SIZE as DIGEST_SIZE
from nectar_protocol.commitment import Digests, StepHeader, StepKind
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE
from nectar_protocol.receipt import BODY, Receipt
from nectar_protocol.tally import Counted

from nectar_swarm.tensors import MAX_BATCH

MAX_STEPS = 4096
MAX_POSITIONS = 1 << 20
HEAD = struct.Struct("!IIIIBxH")


@dataclass(frozen=True)
class BilledStep:
    """A step that was computed: number `last`, and in a replay all from `first` on. Digests are [rows][positions]."""

    first: int
    last: int
    header: StepHeader
    inputs: Digests
    outputs: Digests

    @property
    def positions(self) -> int:
        return len(self.inputs[0])

    @property
    def counted(self) -> Counted:
        """As a tally takes it."""
        return Counted(self.header, self.inputs, self.outputs)

    def pack(self) -> bytes:
        header = self.header
        head = HEAD.pack(self.first, self.last, header.position, self.positions, header.kind, len(header.reorder))
        order = struct.pack(f"!{len(header.reorder)}H", *header.reorder)
        return head + order + b"".join(b"".join(row) for row in (*self.inputs, *self.outputs))

    @classmethod
    def read(cls, reader: Reader, rows: int) -> "BilledStep":
        first, last, position, positions, kind, reordered = HEAD.unpack(reader.take(HEAD.size))
        if not 0 < first <= last or not 0 < positions <= MAX_POSITIONS or reordered not in (0, rows):
            raise MalformedError(f"a billed step {first} to {last} of {positions} positions, {reordered} reordered")
        try:
            header = StepHeader(StepKind(kind), position, struct.unpack(f"!{reordered}H", reader.take(2 * reordered)))
        except ValueError as error:
            raise MalformedError(f"a billed step: {error}") from error
        inputs, outputs = _read_digests(reader, rows, positions), _read_digests(reader, rows, positions)
        return cls(first, last, header, inputs, outputs)


def _read_digests(reader: Reader, rows: int, positions: int) -> Sequence[Sequence[bytes]]:
    data = reader.take(rows * positions * DIGEST_SIZE)
    every = [data[at : at + DIGEST_SIZE] for at in range(0, len(data), DIGEST_SIZE)]
    return [every[row * positions : (row + 1) * positions] for row in range(rows)]


@dataclass(frozen=True)
class Bill:
    """`receipt` is the node's; its totals include the steps."""

    rows: int
    steps: tuple[BilledStep, ...]
    receipt: Receipt
    signature: bytes

    def pack(self) -> bytes:
        return b"".join(
            (
                uint(self.rows, 2, "rows"),
                uint(len(self.steps), 2, "step count"),
                *(step.pack() for step in self.steps),
                self.receipt.body(),
                self.signature,
            )
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Bill":
        """Signatures are not verified. Raises MalformedError."""
        reader = Reader(data)
        rows, count = reader.uint(2), reader.uint(2)
        if not 0 < rows <= MAX_BATCH or count > MAX_STEPS:
            raise MalformedError(f"a bill of {rows} rows and {count} steps")
        steps = tuple(BilledStep.read(reader, rows) for _ in range(count))
        receipt = Receipt.from_body(reader.take(BODY.size))
        signature = reader.take(SIGNATURE_SIZE)
        reader.end()
        return cls(rows, steps, receipt, signature)


@dataclass(frozen=True)
class Countersignature:
    """The client's yes to the bill whose receipt is number `seq`."""

    seq: int
    signature: bytes

    def pack(self) -> bytes:
        return uint(self.seq, 8, "seq") + self.signature

    @classmethod
    def unpack(cls, data: bytes) -> "Countersignature":
        """Raises MalformedError."""
        reader = Reader(data)
        answer = cls(reader.uint(8), reader.take(SIGNATURE_SIZE))
        reader.end()
        return answer
