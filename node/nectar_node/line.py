"""How long an iteration takes by how many rows it has: a straight line through what was measured lately."""

from dataclasses import dataclass

FADING = 0.98  # of what is known, with each further iteration
OUTLIER = 3.0  # times what was expected: an interruption rather than work
DOUBT = 1.0  # rows²: how far apart the rows must have been before their own slope is believed


@dataclass
class Line:
    """Least squares with fading weights. `count` takes rows and seconds."""

    weight: float = 0.0
    rows: float = 0.0  # means, and sums of squared and mixed deviations from them
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def count(self, rows: int, seconds: float, slope_s: float) -> None:
        if self.weight > 1:
            seconds = min(seconds, OUTLIER * max(self.at(rows, slope_s), self.seconds))
        self.weight = FADING * self.weight + 1
        from_rows, from_seconds = rows - self.rows, seconds - self.seconds
        self.rows += from_rows / self.weight
        self.seconds += from_seconds / self.weight
        self.squares = FADING * self.squares + from_rows * (rows - self.rows)
        self.products = FADING * self.products + from_rows * (seconds - self.seconds)

    def row_s(self, slope_s: float) -> float:
        """What a row adds; about `slope_s` where all iterations had about as many rows, and never less than nothing."""
        return max(self.products + DOUBT * slope_s, 0.0) / (self.squares + DOUBT)

    def at(self, rows: float, slope_s: float) -> float:
        """Seconds of so many rows."""
        return max(self.seconds + self.row_s(slope_s) * (rows - self.rows), 0.0)
