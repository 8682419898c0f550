"""Units: what work is worth. A pure function of a receipt's totals, the model's entry and the policy.

    FLOPs = prefill × F(prefill) + decode × F(decode) + backward × F(backward) + opening × decode × F(reserved, at 0)
    units = floor(FLOPs × profile / 10^6)

F is the model entry's reference work of the span; a unit is 10^6 reference FLOPs. All is integers, divided once, on
running totals: how a session was cut into steps changes nothing.
"""

from nectar_protocol.announcement import Profile
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.money import MILLION
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Receipt, Work
from nectar_protocol.record import MAX_COUNT

FLOPS_PER_UNIT = 1_000_000


def units(work: Work, start: int, stop: int, profile: Profile, model: ModelEntry, policy: Policy) -> int:
    """Units of `work` in blocks [start, stop). Raises ConflictError for blocks that the model has not, MalformedError
    for more units than a receipt can hold.
    """

    def flops(tokens: int, context: int) -> int:
        return model.flops(start, stop, tokens, context)

    running = (
        policy.prefill_ppm * flops(work.prefill_tokens, work.prefill_context)
        + policy.decode_ppm * flops(work.decode_tokens, work.decode_context)
        + policy.backward_ppm * flops(work.backward_tokens, work.backward_context)
    )
    opening = policy.opening_ppm * policy.decode_ppm * flops(work.reserved_tokens, 0)
    weighted = (running * MILLION + opening) * policy.profile_ppm(profile)
    total = weighted // (MILLION**3 * FLOPS_PER_UNIT)
    if total > MAX_COUNT:
        raise MalformedError(f"{total} units are more than a receipt holds")
    return total


def check_units(receipt: Receipt, model: ModelEntry, policy: Policy) -> None:
    """Raise ConflictError unless the receipt's units are what anybody computes from its other fields."""
    due = units(receipt.work, receipt.start, receipt.stop, receipt.profile, model, policy)
    if receipt.units != due:
        raise ConflictError(f"the receipt says {receipt.units} units; its work comes to {due} under this policy")
