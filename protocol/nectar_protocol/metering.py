"""Units: what work is worth. A pure function of a receipt's totals, the model's entry and the policy.

    FLOPs = prefill × F(prefill) + decode × F(decode) + backward × F(backward) + opening × decode × F(reserved, at 0)
    units = floor(FLOPs × profile / 10^6)

F is the model entry's reference work of the span; a unit is 10^6 reference FLOPs. All is integers, divided once, on
running totals: how a session was cut into steps changes nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from operator import mul
from typing import NamedTuple

from nectar_protocol.announcement import Profile
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.modelentry import ModelEntry, SpanCost
from nectar_protocol.money import MILLION
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Receipt, Work
from nectar_protocol.record import MAX_COUNT

FLOPS_PER_UNIT = 1_000_000
DIVISOR = MILLION**3 * FLOPS_PER_UNIT


class Rates(NamedTuple):
    """What one of each field of Work is worth, in `divisor`ths of a unit: in lowest terms, which are the quickest."""

    worth: Work
    divisor: int


@dataclass(frozen=True)
class Meter:
    """What work is worth in one span of a model. Worth making once for many receipts; `units` alone is for one."""

    cost: SpanCost
    profile_ppm: int
    policy: Policy

    @classmethod
    def of(cls, start: int, stop: int, profile: Profile, model: ModelEntry, policy: Policy) -> "Meter":
        """Raises ConflictError for blocks that the model has not."""
        return cls(model.span(start, stop), policy.profile_ppm(profile), policy)

    def units(self, work: Work | tuple[int, ...]) -> int:
        """Of the fields of a Work. Raises MalformedError for more units than a receipt can hold."""
        rates = self._rates
        total = self._weighted(work) // DIVISOR if rates is None else sum(map(mul, rates.worth, work)) // rates.divisor
        if total > MAX_COUNT:
            raise MalformedError(f"{total} units are more than a receipt holds")
        return total

    @cached_property
    def _rates(self) -> "Rates | None":
        """None where a window makes a context worth less than its sum."""
        if self.cost.is_windowed:
            return None
        ones = (Work(*(int(i == field) for i in range(len(Work._fields)))) for field in range(len(Work._fields)))
        worth = [self._weighted(one) for one in ones]
        common = gcd(DIVISOR, *worth)
        return Rates(Work(*(each // common for each in worth)), DIVISOR // common)

    def _weighted(self, work: tuple[int, ...]) -> int:
        reserved, prefill, prefill_context, decode, decode_context, backward, backward_context = work
        flops, policy = self.cost.flops, self.policy
        running = policy.prefill_ppm * flops(prefill, prefill_context)
        running += policy.decode_ppm * flops(decode, decode_context)
        running += policy.backward_ppm * flops(backward, backward_context)
        opening = policy.opening_ppm * policy.decode_ppm * flops(reserved, 0)
        return (running * MILLION + opening) * self.profile_ppm


def units(work: Work, start: int, stop: int, profile: Profile, model: ModelEntry, policy: Policy) -> int:
    """Units of `work` in blocks [start, stop). Raises ConflictError for blocks that the model has not, MalformedError
    for more units than a receipt can hold.
    """
    return Meter.of(start, stop, profile, model, policy).units(work)


def check_units(receipt: Receipt, model: ModelEntry, policy: Policy) -> None:
    """Raise ConflictError unless the receipt's units are what anybody computes from its other fields."""
    due = units(receipt.work, receipt.start, receipt.stop, receipt.profile, model, policy)
    if receipt.units != due:
        raise ConflictError(f"the receipt says {receipt.units} units; its work comes to {due} under this policy")
