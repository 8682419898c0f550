"""What the naive model keeps of a hold and of a batch, and what work costs there."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Any

from nectar_protocol import commands as c
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Receipt

MILLION = 10**6


class No(Exception):
    """It is refused."""


def need(holds: object) -> None:
    if not holds:
        raise No


@dataclass
class Line:
    cap: int
    seq: int = 0
    units: int = 0
    final: bool = False
    returned: bool = False
    last: Receipt | None = None


@dataclass
class Opened:
    number: int
    request: c.OpenHold
    model: Any
    policy: Policy
    expires_ms: int
    lines: dict[bytes, Line]
    revision: int = 1

    def cost(self, units: int) -> int:
        return floor(Fraction(units * self.request.weight * self.policy.price, MILLION))

    def share(self, units: int) -> int:
        return floor(self.cost(units) * (1 - Fraction(self.policy.fee_ppm, MILLION)))

    def left(self, line: Line) -> int:
        return 0 if line.returned else self.cost(line.cap) - self.cost(line.units)

    @property
    def balance(self) -> int:
        return sum(map(self.left, self.lines.values()))

    def units(self, receipt: Receipt) -> int:
        need(receipt.stop <= len(self.model.blocks))
        blocks, work, policy = self.model.blocks[receipt.start : receipt.stop], receipt.work, self.policy

        def flops(tokens: int, context: int) -> int:
            return sum(tokens * block.token_flops + context * block.position_flops for block in blocks)

        total = Fraction(policy.prefill_ppm, MILLION) * flops(work.prefill_tokens, work.prefill_context)
        total += Fraction(policy.decode_ppm, MILLION) * flops(work.decode_tokens, work.decode_context)
        total += Fraction(policy.backward_ppm, MILLION) * flops(work.backward_tokens, work.backward_context)
        opening = Fraction(policy.opening_ppm * policy.decode_ppm, MILLION**2)
        total += opening * flops(work.reserved_tokens, 0)
        return floor(total * Fraction(policy.profile_ppm(receipt.profile), MILLION) / MILLION)


@dataclass
class Pot:
    number: int
    node: bytes
    model: bytes
    policy: Policy
    opened_ms: int
    units: int = 0
    earned: int = 0
    verdicts: list[c.Verdict] = field(default_factory=list)
