"""A world and a ledger in it, stocked."""

import pytest

from tests.ledger.core.stage import stock
from tests.ledger.world import Book, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def book(world: World) -> Book:
    return stock(Book(world))
