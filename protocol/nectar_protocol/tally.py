"""What a session has had done on one node so far, as node and client both count it.

A step of one token is decode, a longer one prefill, and so is a replay however long: many steps at once. Backward steps
count apart. Each token counts once for every row, at its position; a rollback takes nothing back.
"""

from dataclasses import dataclass, replace
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
    """A step as it was done: `replay` if it was many at once. Digests are [rows][positions]."""

    header: StepHeader
    inputs: Digests
    outputs: Digests
    replay: bool = False

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
    return grown(work, step.header, step.rows, step.positions, step.replay)


def grown(work: Work, header: StepHeader, rows: int, positions: int, replay: bool) -> Work:
    """Totals with one more step, of which no digests need be known yet. Raises MalformedError over 2^53 − 1."""
    first, tokens = header.position, rows * positions
    context = rows * (positions * first + positions * (positions - 1) // 2)
    kind = "decode" if positions == 1 and not replay else "prefill"
    if header.kind is StepKind.BACKWARD:
        kind = "backward"
    counts = work._asdict()
    more = {name: counts[name] + count for name, count in ((f"{kind}_tokens", tokens), (f"{kind}_context", context))}
    if max(more.values()) > MAX_COUNT:
        raise MalformedError("a line has had more done than a receipt can hold")
    return work._replace(**more)
