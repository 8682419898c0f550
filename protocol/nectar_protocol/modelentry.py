"""What units need to know of a model: the reference FLOPs of each of its blocks.

    magic 8 "NECMODL1" | model 32 | version 4 | state 1 | cost count 1 | block count 2 |
    costs (FLOPs per token 8, FLOPs per position 8, window 4)* | number of its cost, per block 1*

The blocks of a model are of a few kinds, so costs are listed once, in the order of the first block that has them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import accumulate
from typing import Annotated, ClassVar

from nectar_protocol.announcement import MAX_BLOCKS
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import ConflictError, MalformedError
from nectar_protocol.record import U32, Count, Digest, Record, Uint

MAX_COSTS = 255


class AuditState(IntEnum):
    """In SHADOW, verdicts on this model are published and move nothing."""

    SHADOW = 1
    ENFORCED = 2


@dataclass(frozen=True)
class BlockCost(Record):
    """Reference FLOPs of a token in one block: `token_flops` + positions × `position_flops`.

    `window` is how many positions a token looks back at most; 0 is all.
    """

    token_flops: Count
    position_flops: Count
    window: U32 = 0

    def check(self) -> None:
        if self.window and not self.position_flops:
            raise MalformedError("a block that costs nothing per position has no window")


class CostList:
    """Codec of the costs of all blocks: each distinct one once, then a byte for each block."""

    def check(self, value: tuple[BlockCost, ...], name: str) -> None:
        if not 0 < len(value) <= MAX_BLOCKS or len(set(value)) > MAX_COSTS:
            raise MalformedError(f"a model has 1 to {MAX_BLOCKS} blocks, of at most {MAX_COSTS} kinds")

    def pack(self, value: tuple[BlockCost, ...]) -> bytes:
        number = {cost: n for n, cost in enumerate(dict.fromkeys(value))}
        head = uint(len(number), 1, "cost count") + uint(len(value), 2, "block count")
        return head + b"".join(cost.pack() for cost in number) + bytes(number[cost] for cost in value)

    def read(self, reader: Reader) -> tuple[BlockCost, ...]:
        begin = reader.offset
        count, blocks = reader.uint(1), reader.uint(2)
        costs = [BlockCost.read(reader) for _ in range(count)]
        numbers = reader.take(blocks)
        if any(number >= count for number in numbers):
            raise MalformedError("a block has a cost that is not listed")
        value = tuple(costs[number] for number in numbers)
        if self.pack(value) != reader.data[begin : reader.offset]:
            raise MalformedError("the costs of a model stand once each, in the order of their first blocks")
        return value


@dataclass(frozen=True)
class ModelEntry(Record):
    """A version of what the blocks of one model cost; a hold keeps the version it was opened under."""

    MAGIC: ClassVar[bytes] = b"NECMODL1"

    model: Digest
    version: Annotated[int, Uint(4, 2**32 - 1, least=1)]
    state: Annotated[AuditState, Uint(1, max(AuditState), min(AuditState), AuditState)]
    blocks: Annotated[tuple[BlockCost, ...], CostList()]

    @property
    def id(self) -> bytes:
        """SHA-256 of the struct."""
        return hashlib.sha256(self.pack()).digest()

    def span(self, start: int, stop: int) -> "SpanCost":
        """What blocks [start, stop) cost. Raises ConflictError for blocks the model has not."""
        if not 0 <= start < stop <= len(self.blocks):
            raise ConflictError(f"[{start}, {stop}) is not a span of this model's {len(self.blocks)} blocks")
        per_token, per_position = self._sums
        by_window = ((window, sums[stop] - sums[start]) for window, sums in per_position.items())
        return SpanCost(per_token[stop] - per_token[start], tuple((window, cost) for window, cost in by_window if cost))

    @cached_property
    def _sums(self) -> tuple[Sequence[int], dict[int, Sequence[int]]]:
        """Running sums over the blocks of FLOPs per token and, by window, of FLOPs per position."""
        by_window: dict[int, list[int]] = defaultdict(lambda: [0] * len(self.blocks))
        for number, cost in enumerate(self.blocks):
            by_window[cost.window][number] = cost.position_flops
        per_token = list(accumulate((cost.token_flops for cost in self.blocks), initial=0))
        return per_token, {window: list(accumulate(costs, initial=0)) for window, costs in by_window.items()}


@dataclass(frozen=True)
class SpanCost:
    """Reference FLOPs of a span: per token and, by window (0 is none), per position."""

    token_flops: int
    position_flops: tuple[tuple[int, int], ...]

    @property
    def is_windowed(self) -> bool:
        return any(window for window, _ in self.position_flops)

    def flops(self, tokens: int, context: int) -> int:
        """Of `tokens` that stood at positions which add up to `context`.

        A windowed block counts min(context, tokens × window) positions: totals do not tell where each token stood, and
        this is never more than every token at a full window.
        """
        total = tokens * self.token_flops
        for window, flops in self.position_flops:
            total += (min(context, tokens * window) if window else context) * flops
        return total
