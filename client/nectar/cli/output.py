"""How commands talk: results on stdout, for people or as JSON lines; everything else on stderr."""

import json
import logging
import sys
from typing import Any

from rich.console import Console

PIPE_WIDTH = 140
stdout = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
stderr = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A line of progress for people."""
    stderr.print(text, markup=False, soft_wrap=True)


def emit(**fields: Any) -> None:
    """One JSON object on a line of stdout."""
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def configure_logging(verbose: int) -> None:
    """Warnings of our own on stderr; more with -v. Other packages' only with -vv."""
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", level=logging.ERROR
    )
    for name in ("nectar", "nectar_node", "nectar_swarm", "nectar_demo", "nectar_ledger"):
        logging.getLogger(name).setLevel(level)
    # hivemind leaves tasks behind that fail when its daemon ends.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if verbose >= 2:
        logging.getLogger("asyncio").setLevel(logging.INFO)
        logging.getLogger().setLevel(logging.INFO)
