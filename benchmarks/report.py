"""How a benchmark's figures are shown: a table for people, one JSON object for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 150


@dataclass(frozen=True)
class Key:
    """One figure: what it is, and its bound. `petals` is what Petals reaches in the same measurement."""

    name: str
    what: str
    limit: float
    at_least: bool = False
    petals: str = "–"

    @property
    def bound(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def print_table(keys: Sequence[Key], values: Mapping[str, float], footer: str) -> None:
    table = Table("key", "what", "value", "bound", "met", "Petals", caption=footer, caption_justify="left")
    for key in keys:
        if key.name in values:
            value = values[key.name]
            table.add_row(key.name, key.what, f"{value:.2f}", key.bound, "yes" if key.met(value) else "no", key.petals)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)


def print_json(values: Mapping[str, float], **others: Any) -> None:
    """One object on one line: the keys, and whatever else is worth keeping."""
    print(json.dumps({**{name: round(value, 4) for name, value in values.items()}, **others}), flush=True)
