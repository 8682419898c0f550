"""Units: what work is worth. A pure function of a receipt's totals, the model's entry and the policy.

    FLOPs = prefill × F(prefill) + decode × F(decode) + backward × F(backward) + opening × decode × F(reserved, at 0)
    units = floor(FLOPs × profile / 10^6)

F is the model entry's reference work of the span; a unit is 10^6 reference FLOPs. All is integers, divided once, on
running totals: how a session was cut into steps changes nothing.
"""

from dataclasses import dataclass

from nectar_protocol.announcement import Profile
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.money import MILLION
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Receipt, Work
from nectar_protocol.record import MAX_COUNT

FLOPS_PER_UNIT = 1_000_000
DIVISOR = MILLION**3 * FLOPS_PER_UNIT


@dataclass(frozen=True)
class Meter:
    """What work is worth in one span of a model: FLOPs per token and, by window, per position, and the divisor below.

    Worth making once for many receipts; `units` alone is for one.
    """

    token_flops: int
    position_flops: tuple[tuple[int, int], ...]
    profile_ppm: int
    policy: Policy

    @classmethod
    def of(cls, start: int, stop: int, profile: Profile, model: ModelEntry, policy: Policy) -> "Meter":
        """Raises ConflictError for blocks that the model has not."""
        token_flops, position_flops = model.span_flops(start, stop)
        return cls(token_flops, position_flops, policy.profile_ppm(profile), policy)

    def flops(self, tokens: int, context: int) -> int:
        """Reference FLOPs of `tokens` that stood at positions which add up to `context`.

        A windowed block counts min(context, tokens × window) positions: totals do not tell where each token stood, and
        this is never more than every token at a full window.
        """
        total = tokens * self.token_flops
        for window, flops in self.position_flops:
            total += (min(context, tokens * window) if window else context) * flops
        return total

    def units(self, work: Work) -> int:
        """Raises MalformedError for more units than a receipt can hold."""
        reserved, prefill, prefill_context, decode, decode_context, backward, backward_context = work
        policy = self.policy
        running = policy.prefill_ppm * self.flops(prefill, prefill_context)
        running += policy.decode_ppm * self.flops(decode, decode_context)
        if backward:
            running += policy.backward_ppm * self.flops(backward, backward_context)
        opening = policy.opening_ppm * policy.decode_ppm * reserved * self.token_flops
        total = (running * MILLION + opening) * self.profile_ppm // DIVISOR
        if total > MAX_COUNT:
            raise MalformedError(f"{total} units are more than a receipt holds")
        return total


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
