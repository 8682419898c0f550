"""How much a session sets aside for its nodes. Pure functions of what it may do, in units and µcr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from nectar_protocol.commitment import StepHeader, StepKind
from nectar_protocol.hold import Hold, Line, sorted_lines
from nectar_protocol.identity import PublicKey
from nectar_protocol.metering import Meter
from nectar_protocol.money import MAX_UCR, MILLION
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Work
from nectar_protocol.record import MAX_COUNT
from nectar_protocol.tally import grown

SLACK = Fraction(5, 4)  # for drafts that are rolled back, and for replays
PAID_TOKENS = 512  # of a step that is paid for; nodes do twice as much before they want a signature
RAISE_AT = Fraction(3, 4)  # of a cap
GROWTH = 2


@dataclass(frozen=True)
class Extent:
    """What a session may come to: `rows` of `length` positions, of which the first `prompt` come at once."""

    rows: int
    length: int
    prompt: int

    @property
    def work(self) -> Work:
        """Each position once: the prompt in steps as they are paid for, then token by token."""
        work, header = Work(reserved_tokens=self.rows * self.length), partial(StepHeader, StepKind.FORWARD)
        prompt, at_once = min(self.prompt, self.length), max(1, PAID_TOKENS // self.rows)
        for position in range(0, prompt, at_once):
            work = grown(work, header(position), self.rows, min(at_once, prompt - position))
        rest, positions = self.length - prompt, (prompt + self.length - 1) * (self.length - prompt) // 2
        return work._replace(
            decode_tokens=work.decode_tokens + self.rows * rest,
            decode_context=work.decode_context + self.rows * positions,
        )


@dataclass(frozen=True)
class Purchase:
    """The rules for what is set aside: a weight, a policy, and what it may be at most, in µcr."""

    weight: int
    policy: Policy
    budget_ucr: int = MAX_UCR

    @property
    def most_units(self) -> int:
        """Of one line."""
        return MAX_COUNT if self.weight else self.policy.free_cap_units

    def wanted(self, meter: Meter, extent: Extent) -> int:
        """The units of one span. Raises MalformedError for what no receipt holds."""
        return max(1, min(int(meter.units(extent.work) * SLACK), self.most_units))

    def lines(self, wanted: Mapping[PublicKey, int]) -> tuple[Line, ...]:
        """The lines of a new hold; empty where nothing may be set aside at all. A small hold is enlarged."""
        if not wanted or self.most_units == 0:
            return ()
        caps = dict(wanted)
        if self.weight and (short := self._least_units - sum(caps.values())) > 0:
            caps = {node: cap + -(-short // len(caps)) for node, cap in caps.items()}
        caps = self._within(caps, {})
        return sorted_lines(Line(node, cap) for node, cap in caps.items())

    def raised(self, hold: Hold, wanted: Mapping[PublicKey, int]) -> tuple[Line, ...]:
        """The lines of a hold's next revision: `wanted` are new lines and higher caps. What is over the budget is
        left out.
        """
        held = {line.server: line.cap_units for line in hold.lines}
        more = {node: min(cap, self.most_units) for node, cap in wanted.items()}
        more = {node: cap for node, cap in more.items() if cap > held.get(node, 0)}
        caps = held | self._within(more, held)
        return sorted_lines(Line(node, cap) for node, cap in caps.items())

    def _within(self, more: Mapping[PublicKey, int], held: Mapping[PublicKey, int]) -> dict[PublicKey, int]:
        """New and higher caps, all cut alike to fit the budget; those that would not rise are left out."""
        if not self.weight or not self.policy.price:
            return dict(more)
        most = self.budget_ucr * MILLION // (self.weight * self.policy.price)
        left = most - sum(held.values())
        rise = sum(cap - held.get(node, 0) for node, cap in more.items())
        if rise <= left:
            return dict(more)
        cut = {node: held.get(node, 0) + max(0, (cap - held.get(node, 0)) * left // rise) for node, cap in more.items()}
        return {node: cap for node, cap in cut.items() if cap > held.get(node, 0)}

    @property
    def _least_units(self) -> int:
        price = self.weight * self.policy.price
        return -(-self.policy.hold_least_ucr * MILLION // price) if price else 0


def used_up(units: Mapping[PublicKey, int], lines: Sequence[Line]) -> dict[PublicKey, int]:
    """Higher caps for those lines that are nearly used."""
    return {
        line.server: line.cap_units * GROWTH for line in lines if units.get(line.server, 0) >= line.cap_units * RAISE_AT
    }
