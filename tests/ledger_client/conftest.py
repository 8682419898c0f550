"""A ledger that is really served, with both clients to ask it."""

from collections.abc import Iterator

import pytest

from tests.ledger.api.served import Served, serve, usual
from tests.ledger.world import World
from tests.ledger_client.asking import Asker, AsyncAsker
from tests.ledger_client.history import PROBED


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a model, a node, and Alice who can pay; batches wait for verdicts."""
    world = World(PROBED)
    ledger, stop = serve(tmp_path_factory.mktemp("ledger"), world, orders=usual(world))
    yield ledger
    stop()


@pytest.fixture(params=[Asker, AsyncAsker])
def ledger(request: pytest.FixtureRequest, served: Served) -> Iterator[Asker]:
    """Each client in turn; it knows the ledger's ID, and its clock."""
    asker = request.param(served.url, served.world.ledger, clock_s=lambda: served.clock() / 1000)
    yield asker
    asker.end()
