"""Draw the demo model's loss history as an SVG file, and print its values as a table.

Run from the root of the repository: python -m demo.training.plot
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 56, 24, 16, 44
CURVES = (("train_loss", "training text", "#b45309"), ("held_out_loss", "held-out text", "#1d4ed8"))


def _scale(history: list[dict[str, Any]]) -> tuple[float, int, int]:
    """Return the largest step and the whole-number loss range of the chart."""
    losses = [point[key] for point in history for key, _, _ in CURVES]
    return history[-1]["step"], math.floor(min(losses)), math.ceil(max(losses))


def _axes(last: float, low: int, high: int) -> list[str]:
    """Draw the grid lines with their labels."""
    parts = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for loss in range(low, high + 1):
        y = bottom - (loss - low) / (high - low) * (bottom - TOP)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#d4d4d4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{loss}</text>')
    for quarter in range(5):
        x = LEFT + quarter / 4 * (right - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{round(last * quarter / 4)}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">optimizer step</text>')
    parts.append(f'<text x="{LEFT}" y="14">loss (nats per token)</text>')
    return parts


def draw(history: list[dict[str, Any]]) -> str:
    """Return the SVG text of both loss curves."""
    last, low, high = _scale(history)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12" fill="#404040">',
        "<title>Loss of the demo model while training</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_axes(last, low, high),
    ]
    for number, (key, label, colour) in enumerate(CURVES):
        points = " ".join(
            f"{LEFT + point['step'] / last * (right - LEFT):.1f},"
            f"{bottom - (point[key] - low) / (high - low) * (bottom - TOP):.1f}"
            for point in history
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right - 110}" y="{TOP + 20 + 18 * number}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Print the history and write the picture."""
    parser = argparse.ArgumentParser(description="Draw the loss history of the demo model.")
    parser.add_argument("--history", type=Path, default=ROOT / "demo" / "training" / "loss.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "demo-model-loss.svg")
    arguments = parser.parse_args()
    history = json.loads(arguments.history.read_text(encoding="utf-8"))["history"]
    print("| step | training loss | held-out loss |\n| ---: | ---: | ---: |")
    for point in history:
        print(f"| {point['step']} | {point['train_loss']:.3f} | {point['held_out_loss']:.3f} |")
    arguments.out.write_text(draw(history), encoding="utf-8")


if __name__ == "__main__":
    main()
