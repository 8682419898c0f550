"""Which blocks a node that joins should serve: those of which the swarm does least.

The rule is Petals': a block's throughput is the sum over the nodes that serve it; a node that joins takes the window
whose blocks are worst, compared from the worst block upwards. Pure functions.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from nectar_protocol.announcement import Announcement

from nectar_node.errors import PlacementError


def rates(announcements: Sequence[Announcement]) -> list[float]:
    """Each node's tokens per second, by its own measurements.

    A node that still loads for the first time has measured nothing; it counts like the average of the others.
    """
    known = [1e6 / a.decode_us for a in announcements if a.decode_us]
    usual = sum(known) / len(known) if known else 1.0
    return [1e6 / a.decode_us if a.decode_us else usual for a in announcements]


def block_throughput(announcements: Iterable[Announcement], blocks: int) -> list[float]:
    """Tokens per second that nodes offer for each block."""
    present = list(announcements)
    throughput = [0.0] * blocks
    for announcement, rate in zip(present, rates(present), strict=True):
        for block in range(announcement.start, min(announcement.stop, blocks)):
            throughput[block] += rate
    return throughput


def choose_span(announcements: Iterable[Announcement], blocks: int, length: int) -> tuple[int, int]:
    """The span of `length` blocks that the swarm lacks most; the whole model if it fits."""
    length = min(length, blocks)
    throughput = block_throughput(announcements, blocks)
    start = min(range(blocks - length + 1), key=lambda at: (sorted(throughput[at : at + length]), at))
    return start, start + length


def parse_span(text: str, blocks: int) -> tuple[int, int]:
    """`0:16` as a span of a model of so many blocks. Raises PlacementError."""
    first, colon, last = text.partition(":")
    try:
        start, stop = int(first or 0), int(last or blocks)
    except ValueError:
        colon = ""
        start = stop = 0
    if not colon:
        raise PlacementError(f"--blocks {text!r} is not a span; write START:STOP, as in 0:16")
    if not 0 <= start < stop <= blocks:
        raise PlacementError(f"--blocks {text}: this model has blocks 0:{blocks}")
    return start, stop


def blocks_that_fit(block_bytes: Sequence[int], kv_bytes_per_block: int, available_bytes: int) -> int:
    """How many blocks, each with its KV, fit into the memory."""
    return min(available_bytes // (max(block_bytes) + kv_bytes_per_block), len(block_bytes))


def share_blocks(blocks: int, capacities: Sequence[int]) -> list[int]:
    """How many of so many blocks each device takes: in proportion to how many it could hold."""
    weights = capacities if any(capacities) else [1] * len(capacities)
    upto = [round(blocks * total / sum(weights)) for total in accumulate(weights, initial=0)]
    return [after - before for before, after in pairwise(upto)]


def need_a_block(block_bytes: Sequence[int], kv_bytes_per_block: int, available_bytes: int) -> int:
    """Like blocks_that_fit. Raises PlacementError if not even one does."""
    count = blocks_that_fit(block_bytes, kv_bytes_per_block, available_bytes)
    if not count:
        largest = max(block_bytes) + kv_bytes_per_block
        raise PlacementError(
            f"not one block fits: {largest >> 20} MiB are needed, {available_bytes >> 20} MiB may be used; "
            "choose a smaller --profile or --kv-tokens"
        )
    return count
