"""How much KV a node promises: a number of positions, reserved when a session opens and given back when it ends."""


class KVBudget:
    """Counted in positions of one row through the whole span; a session of part of the span counts as one of all."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total

    def reserve(self, positions: int) -> bool:
        """False, and nothing reserved, when there is not as much left."""
        if positions > self.free:
            return False
        self.free -= positions
        return True

    def release(self, positions: int) -> None:
        self.free += positions
        assert self.free <= self.total, "more KV was given back than was reserved"
