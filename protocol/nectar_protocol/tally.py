"""What a session has had done on one node so far, as node and client both count it.

The first position of a step is decode and the others are prefill, however many they are: it is for the pass over the
weights. So nobody gains by how steps are cut or named. Backward steps count apart. Each token counts once for every
row, at its position; a rollback takes nothing back.
"""

from dataclasses import dataclass, replace
from operator import add
from typing import Self

from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import Commitment, Digests, StepHeader, StepKind
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.identity import PublicKey
from nectar_protocol.metering import Meter
from nectar_protocol.receipt import Receipt, Work
from nectar_protocol.record import MAX_COUNT


@dataclass(frozen=True)
class Terms:
    """What all receipts of a line share. `dtype` is the wire's code of its vectors, `salt` the session's."""

    hold: bytes
    server: PublicKey
    session: PublicKey
    start: int
    stop: int
    profile: Profile
    dtype: int
    salt: bytes


@dataclass(frozen=True)
class Counted:
    """A step as it was done. Digests are [rows][positions]."""

    header: StepHeader
    inputs: Digests
    outputs: Digests

    @property
    def rows(self) -> int:
        return len(self.inputs)

    @property
    def positions(self) -> int:
        return len(self.inputs[0]) if self.inputs else 0

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return self.rows * self.positions


@dataclass(frozen=True)
class Tally:
    """Totals and commitment of a line. Each step gives a new one; nothing is changed in place."""

    terms: Terms
    work: Work
    commitment: Commitment
    seq: int = 0

    @classmethod
    def begin(cls, terms: Terms, reserved_tokens: int) -> Self:
        """Before the first step. Raises MalformedError."""
        commitment = Commitment.begin(
            terms.hold, terms.server, terms.session, terms.start, terms.stop, terms.profile, terms.dtype, terms.salt
        )
        return cls(terms, Work(reserved_tokens), commitment)

    @classmethod
    def resume(cls, terms: Terms, receipt: Receipt, reserved_tokens: int) -> Self:
        """Behind a receipt that both have signed. Raises ConflictError for one of another line, or a final one."""
        line = receipt.hold, receipt.server, receipt.session, receipt.start, receipt.stop, receipt.profile
        if line != (terms.hold, terms.server, terms.session, terms.start, terms.stop, terms.profile):
            raise ConflictError("this receipt is of another line, and nothing of this one goes on from it")
        if receipt.final:
            raise ConflictError("this line has its final receipt: open another hold")
        work = receipt.work
        tokens = work.prefill_tokens + work.decode_tokens + work.backward_tokens
        reserved = max(reserved_tokens, work.reserved_tokens)
        return cls(terms, work._replace(reserved_tokens=reserved), Commitment(receipt.commitment, tokens), receipt.seq)

    def after(self, step: Counted) -> Self:
        """With one more step. Raises MalformedError."""
        commitment = self.commitment.after(step.header, step.inputs, step.outputs)
        return replace(self, work=worked(self.work, step), commitment=commitment)

    def receipt(self, meter: Meter, final: bool = False) -> Receipt:
        """The next receipt of this line. Raises MalformedError for totals that none holds."""
        terms = self.terms
        return Receipt(
            terms.hold, terms.server, terms.session, self.commitment.value, self.seq + 1, terms.start, terms.stop,
            terms.profile, final, self.work, meter.units(self.work),
        )  # fmt: skip

    def signed(self) -> Self:
        """After its receipt was signed by both."""
        return replace(self, seq=self.seq + 1)


def worked(work: Work, step: Counted) -> Work:
    """Totals with one more step. Raises MalformedError over 2^53 − 1."""
    return grown(work, step.header, step.rows, step.positions)


def grown(work: Work, header: StepHeader, rows: int, positions: int) -> Work:
    """Totals with one more step, of which no digests need be known yet. Raises MalformedError over 2^53 − 1."""
    first = header.position
    if header.kind is StepKind.BACKWARD:
        more = Work(backward_tokens=rows * positions, backward_context=rows * _sum(first, first + positions))
    else:
        more = Work(
            prefill_tokens=rows * (positions - 1),
            prefill_context=rows * _sum(first + 1, first + positions),
            decode_tokens=rows,
            decode_context=rows * first,
        )
    total = Work(*map(add, work, more))
    if max(total) > MAX_COUNT:
        raise MalformedError("a line has had more done than a receipt can hold")
    return total


def _sum(start: int, stop: int) -> int:
    """Of the positions from `start` up to `stop`, exclusive."""
    return (start + stop - 1) * (stop - start) // 2
