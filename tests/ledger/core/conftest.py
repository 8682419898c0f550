"""A world and a ledger in it, stocked."""

import pytest

from tests.ledger.core.stage import PROBED, name_auditor, stock
from tests.ledger.world import Book, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def book(world: World) -> Book:
    return stock(Book(world))


@pytest.fixture
def probed() -> Book:
    """A ledger whose batches wait for verdicts, with an auditor."""
    book = stock(Book(World(PROBED)))
    name_auditor(book)
    return book
