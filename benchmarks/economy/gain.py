"""What a cheat brought, held against honesty."""

from dataclasses import dataclass

from nectar_protocol.money import UCR_PER_CREDIT


@dataclass(frozen=True)
class Gain:
    """In µcr: what the cheat had in the end, what honest behaviour would have had in its place, and by how much the
    threat's bound lets the first exceed the second; a bound below zero is what cheating has to cost."""

    cheat_ucr: float
    honest_ucr: float = 0
    bound_ucr: float = 0

    @property
    def beyond(self) -> float:
        """In credits; at most 0 where the rule holds."""
        return (self.cheat_ucr - self.honest_ucr - self.bound_ucr) / UCR_PER_CREDIT


def worst(*gains: Gain) -> Gain:
    """The one furthest beyond its bound."""
    return max(gains, key=lambda gain: gain.beyond)
