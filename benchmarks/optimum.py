"""The best bottleneck that nodes of given lengths and rates can have, proven: what placements are measured against."""

from collections.abc import Sequence

PRECISION = 1.005
MAX_TRIES = 200_000


def best_bottleneck(nodes: Sequence[tuple[int, float]], blocks: int) -> float:
    """The greatest least sum of rates over all blocks, from above and within half a per cent, for (length, rate) nodes
    at starts of their choice. Looser, but still no less, where the search gives up.
    """
    high = sum(length * rate for length, rate in nodes) / blocks
    low = high * 1e-3
    while high / low > PRECISION:
        middle = (high * low) ** 0.5
        found = Search(nodes, blocks, middle).run()
        if found is None:
            return high
        low, high = (middle, high) if found else (low, middle)
    return high


class Search:
    """Can every block have at least `goal`? Exhaustive, up to what cannot matter.

    Go through the blocks from the first. Where one lacks, some unused node must cover it. In any solution that node can
    be shifted to begin right there: what it covered before was served already. So only that start is tried for each
    node, in one order for those that begin at the same block.
    """

    def __init__(self, nodes: Sequence[tuple[int, float]], blocks: int, goal: float) -> None:
        useful = [(length, min(rate, goal)) for length, rate in nodes]
        self.nodes = sorted(useful, key=lambda node: node[0] * node[1], reverse=True)
        self.blocks, self.goal, self.enough = blocks, goal, goal * (1 - 1e-9)
        self.failed: set[tuple[int, int, int, tuple[float, ...]]] = set()
        self.tries = 0

    def run(self) -> bool | None:
        """None if it would take too long."""
        try:
            return self._fill([0.0] * self.blocks, 0, 0, 0)
        except TimeoutError:
            return None

    def _fill(self, total: list[float], used: int, block: int, first: int) -> bool:
        while block < self.blocks and total[block] >= self.enough:
            block, first = block + 1, 0
        if block == self.blocks:
            return True
        state = (used, first, block, tuple(total[block:]))
        self.tries += 1
        if self.tries > MAX_TRIES:
            raise TimeoutError
        if state not in self.failed and self._can_be_enough(total, used, block):
            for at in range(first, len(self.nodes)):
                if not used >> at & 1 and self._fill(self._with(total, at, block), used | 1 << at, block, at + 1):
                    return True
        self.failed.add(state)
        return False

    def _can_be_enough(self, total: list[float], used: int, block: int) -> bool:
        unused = sum(length * rate for at, (length, rate) in enumerate(self.nodes) if not used >> at & 1)
        return unused >= sum(max(0.0, self.enough - there) for there in total[block:])

    def _with(self, total: list[float], at: int, block: int) -> list[float]:
        length, rate = self.nodes[at]
        start = min(block, self.blocks - length)
        return [there + rate if start <= b < start + length else there for b, there in enumerate(total)]
