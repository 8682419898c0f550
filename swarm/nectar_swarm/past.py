"""A session's history, asked for and given: what a node received, step by step, with what was rolled back since.

    ask      request of the protocol 112 | session's signature 64
    part     count 4 | number 4, from 1 | a STEP's payload; with count 0 nothing follows

Parts come in the order in which the steps came. An ERROR says why there are none.
"""

from dataclasses import dataclass

from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE
from nectar_protocol.opening import HistoryRequest

from nectar_swarm.messages import Step


@dataclass(frozen=True)
class HistoryCall:
    """A request with the signature of the session's key, checked by `request.verify` alone."""

    request: HistoryRequest
    signature: bytes

    def pack(self) -> bytes:
        return self.request.pack() + self.signature

    @classmethod
    def unpack(cls, data: bytes) -> "HistoryCall":
        """Raises MalformedError."""
        reader = Reader(data)
        call = cls(HistoryRequest.read(reader), reader.take(SIGNATURE_SIZE))
        reader.end()
        return call


@dataclass(frozen=True)
class Past:
    """Part `number` of `count`; a history of nothing is one part without a step, number 0 of 0."""

    count: int
    number: int
    step: Step | None

    def pack(self) -> bytes:
        head = uint(self.count, 4, "count") + uint(self.number, 4, "number")
        return head + (b"" if self.step is None else self.step.pack())

    @classmethod
    def unpack(cls, data: bytes) -> "Past":
        """Raises MalformedError."""
        reader = Reader(data)
        count, number = reader.uint(4), reader.uint(4)
        if number > count or (number == 0) != (count == 0):
            raise MalformedError(f"part {number} of a history of {count}")
        if count:
            return cls(count, number, Step.unpack(data[reader.offset :]))
        reader.end()
        return cls(count, number, None)
