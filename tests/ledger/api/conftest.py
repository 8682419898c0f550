"""Ledgers that are really served: `served` for all tests of a module, `serve` for one with settings of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.api import served as serving
from tests.ledger.api.served import Served, usual
from tests.ledger.world import World

Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a model, a node, and Alice who can pay. Tests share it, and bring people of their own."""
    world = World()
    ledger, stop = serving.serve(tmp_path_factory.mktemp("ledger"), world, orders=usual(world))
    yield ledger
    stop()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(world: World | None = None, **settings: Any) -> Served:
            world = world or World()
            ledger, stop = serving.serve(tmp_path, world, **({"orders": usual(world)} | settings))
            stack.callback(stop)
            return ledger

        yield start
