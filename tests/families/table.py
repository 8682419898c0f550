"""Writes the page of families from the tests: python -m tests.families.table"""

import os
import sys
import tempfile
from pathlib import Path

from nectar_swarm.anatomy import examine
from nectar_swarm.errors import UnsupportedModelError

from tests.families.configs import ALL, REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
BEGIN, END = "<!-- {}: written by python -m tests.families.table -->", "<!-- end -->"


def section(page: str, name: str) -> tuple[int, int]:
    """Where the lines of a part of the page begin and end."""
    start = page.index(BEGIN.format(name)) + len(BEGIN.format(name)) + 1
    return start, page.index(END, start)


def refusals() -> list[str]:
    """What users of models that cannot be served are told, as rows."""
    rows = []
    for kind, (make, _) in REFUSED.items():
        try:
            examine(make())
        except UnsupportedModelError as error:
            rows.append(f"| `{kind}` | {' '.join(str(error).split())} |")
    return rows


def main() -> None:
    import torch
    from transformers.utils import logging

    from tests.families.measure import measure

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    page = PAGE.read_text()
    start, stop = section(page, "refused")
    page = page[:start] + "\n".join(["| model type | what you are told |", "|---|---|", *refusals(), ""]) + page[stop:]
    PAGE.write_text(page)
    chosen = sys.argv[1:] or list(ALL)
    known = {}  # other rows stay as they are
    start, stop = section(page, "served")
    for line in page[start:stop].splitlines()[2:]:
        known[line.split("|")[1]] = line
    for family in chosen:
        row = str(measure(family))
        print(row, flush=True)
        known[row.split("|")[1]] = row
        head = [
            "| model type | blocks' outputs, max abs. difference | sessions run | modes with equal tokens |",
            "|---|---|---|---|",
        ]
        start, stop = section(page, "served")
        page = page[:start] + "\n".join([*head, *sorted(known.values()), ""]) + page[stop:]
        PAGE.write_text(page)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NECTAR_CACHE"], os.environ["HF_HUB_OFFLINE"] = cache, "1"
        main()
