"""Contiguous stretches of the arena: who has which positions. Pure arithmetic."""

from bisect import bisect


class Extents:
    """Hands out stretches of [0, total), first fit. `free` counts all free positions, however scattered."""

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._gaps: list[tuple[int, int]] = [(0, total)] if total else []  # (offset, size), ascending, never touching

    def reserve(self, sizes: list[int]) -> list[int] | None:
        """An offset for each size; None, and nothing reserved, when not all of them fit."""
        offsets: list[int] = []
        for size in sizes:
            at = next((at for at, (_, room) in enumerate(self._gaps) if room >= size), None)
            if at is None:
                for offset, taken in zip(offsets, sizes, strict=False):
                    self.release(offset, taken)
                return None
            offset, room = self._gaps[at]
            self._gaps[at : at + 1] = [(offset + size, room - size)] if room > size else []
            self.free -= size
            offsets.append(offset)
        return offsets

    def release(self, offset: int, size: int) -> None:
        at = bisect(self._gaps, (offset, size))
        before = self._gaps[at - 1] if at else (0, 0)
        after = self._gaps[at] if at < len(self._gaps) else (self.total + 1, 0)
        assert sum(before) <= offset, "positions were given back twice"
        assert offset + size <= after[0], "positions were given back twice"
        start, stop = offset, offset + size
        if at and sum(before) == offset:
            at, start = at - 1, before[0]
        upto = at + (start < offset)
        if after[0] == stop:
            stop, upto = sum(after), upto + 1
        self._gaps[at:upto] = [(start, stop - start)]
        self.free += size
