"""Reads cost the same however long the log is: each by an index, none over a whole table or much of one.

    NECTAR_SCALE_ENTRIES=10000000 python -m pytest -m slow -s tests/ledger/test_scale.py

prints how long each takes with so many entries; without it there are 307,200.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.cosignatures import find_cosigned, read_cosignatures
from nectar_ledger.store.database import Database
from nectar_ledger.store.reading import read_head, read_newest_checkpoint
from nectar_ledger.store.schema import metadata
from nectar_ledger.store.views.accounts import find_account, list_statement
from nectar_ledger.store.views.batches import find_batch, list_batches_of, list_verdicts
from nectar_ledger.store.views.epochs import list_epochs, read_supply
from nectar_ledger.store.views.holds import find_hold, list_holds_of
from nectar_ledger.store.views.ledger import read_ledger
from nectar_ledger.store.views.models import find_model, list_models
from nectar_ledger.store.views.nodes import find_node, list_nodes, list_nodes_of
from nectar_ledger.store.views.page import Page, Window
from nectar_ledger.store.views.policies import find_policy, list_policies
from nectar_ledger.store.views.purses import find_purse, list_purse_lines
from nectar_ledger.store.views.settlements import list_settlements_of_batch, list_settlements_of_hold
from nectar_protocol.note import Kind, NoteKey
from nectar_protocol.proofs import verify_consistency
from nectar_protocol.tiles import ENTRIES, Tile, unpack_bundle

from tests.ledger.crowd import (
    ENTRIES_AT_ONCE,
    FIRST_HOLD,
    PAYEE,
    PAYEE_KEY,
    PAYER,
    PER_BATCH,
    PER_HOLD,
    Crowd,
)
from tests.ledger.world import ORIGIN

COUNT = int(os.environ.get("NECTAR_SCALE_ENTRIES", "307200")) // ENTRIES_AT_ONCE * ENTRIES_AT_ONCE
LIMIT = 50
TRIES = 5
# More than what is open, far less than what there has been.
MAX_ROWS = 5_000
SMALL = {"books", "log_head", "nodes", "policies", "models", "purses"}
# Read in the order of an index, backwards, until there is enough.
BOUNDED = {("checkpoint", "checkpoints"), ("cosigned checkpoint", "cosignatures")}
# What these have is open, whatever else there has been.
OPEN = {"holds_open", "batches_open"}

Read = Callable[[sa.Connection], Any]
pytestmark = pytest.mark.slow


def pages_of(read: Callable[[sa.Connection, Window], Page[Any]], middle: int) -> dict[str, Read]:
    """The newest page, one from the middle, and one upwards from there; each must be full."""

    def page(window: Window) -> Read:
        def full(connection: sa.Connection) -> None:
            assert len(read(connection, window).items) == LIMIT

        return full

    return {
        "newest": page(Window(LIMIT)),
        "before": page(Window(LIMIT, before=middle)),
        "after": page(Window(LIMIT, after=middle)),
    }


def lists(crowd: Crowd) -> dict[str, Read]:
    half, middle_hold = crowd.count // 2, FIRST_HOLD + crowd.count // PER_HOLD // 2
    batch = crowd.first_batch + 1

    def statement(connection: sa.Connection, window: Window) -> Page[Any]:
        account = find_account(connection, PAYEE_KEY)
        assert account is not None
        return list_statement(connection, account, window)

    every = {
        "statement": pages_of(statement, half << 8),
        "purse statement": pages_of(lambda at, window: list_purse_lines(at, PAYER, window), half),
        "holds of a purse": pages_of(lambda at, window: list_holds_of(at, PAYER, window), middle_hold),
        "settlements of a batch": pages_of(
            lambda at, window: list_settlements_of_batch(at, batch, window), PER_BATCH + PER_BATCH // 2
        ),
    }
    return {f"{name}, {which}": read for name, pages in every.items() for which, read in pages.items()}


def single(crowd: Crowd) -> dict[str, Read]:
    window, hold = Window(LIMIT), FIRST_HOLD + crowd.count // PER_HOLD // 2
    policy, model = crowd.world.policy, crowd.world.model
    return {
        "account": lambda at: find_account(at, PAYEE_KEY),
        "purse": lambda at: find_purse(at, PAYER),
        "hold": lambda at: find_hold(at, crowd.hold_id(hold)),
        "settlements of a hold": lambda at: list_settlements_of_hold(at, hold, window).items,
        "node": lambda at: find_node(at, crowd.node_key(1)),
        "nodes": lambda at: list_nodes(at, window).items,
        "nodes of a payee": lambda at: list_nodes_of(at, PAYEE, window).items,
        "batch": lambda at: find_batch(at, crowd.first_batch),
        "batches of a node": lambda at: list_batches_of(at, 1, window).items,
        "verdicts": lambda at: list_verdicts(at, crowd.first_batch),
        "epochs": lambda at: list_epochs(at, window).items,
        "supply": read_supply,
        "ledger": read_ledger,
        "policy": lambda at: find_policy(at, policy.id),
        "policies": lambda at: list_policies(at, window).items,
        "model": lambda at: find_model(at, model.model),
        "models": lambda at: list_models(at, window).items,
        "head": read_head,
        "checkpoint": read_newest_checkpoint,
        "cosignatures": lambda at: read_cosignatures(at, crowd.count),
        "cosigned checkpoint": lambda at: find_cosigned(at, 1),
    }


def of_the_log(crowd: Crowd) -> dict[str, Read]:
    log, index, size = LogReader(crowd.database), crowd.count // 3, crowd.count
    return {
        "proof": lambda at: log.proof(index, crowd.checkpoint),
        "consistency": lambda at: log.consistency(index, size),
        "tile": lambda at: log.tile(Tile(0, 1)),
        "bundle": lambda at: log.tile(Tile(ENTRIES, 1)),
        "entry": lambda at: log.entry(index),
    }


def check_proofs(crowd: Crowd) -> None:
    """That what is read of the log is the log."""
    log, index, size = LogReader(crowd.database), crowd.count // 3, crowd.count
    key = NoteKey(ORIGIN, Kind.NOTE, crowd.world.keys.log.public)
    checkpoint = log.proof(index, crowd.checkpoint).verify(log.entry(index), key).checkpoint
    verify_consistency(index, size, log.consistency(index, size), log.root(index), checkpoint.root)
    assert unpack_bundle(log.tile(Tile(ENTRIES, 1)), 256)[0] == log.entry(256)


@contextmanager
def statements_of(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database meanwhile."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    sa.event.listen(database.writing, "before_cursor_execute", note)
    yield asked
    sa.event.remove(database.writing, "before_cursor_execute", note)


def read_too_much(database: Database, statement: str, parameters: Any) -> set[str]:
    """The tables that a statement goes through from end to end (SQLite), or reads too many rows of (PostgreSQL)."""
    with database.reading.begin() as connection:
        if connection.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row[3] for row in plan if not re.search("|".join(OPEN), row[3])]
            return {step.split()[1] for step in steps if step.startswith("SCAN ")} & set(metadata.tables)
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        return set(_scanned(explained.scalar_one()))


def _scanned(plan: Any) -> Iterator[str]:
    for step in plan:
        node = step.get("Plan", step)
        rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        if "Relation Name" in node and rows > MAX_ROWS:
            yield node["Relation Name"]
        yield from _scanned(node.get("Plans", ()))


def median_ms(read: Callable[[], object]) -> float:
    took = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        read()
        took.append((time.perf_counter() - begin) * 1000)
    return sorted(took)[TRIES // 2]


def test_every_read_goes_by_an_index(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    crowd = Crowd(database, COUNT)
    check_proofs(crowd)
    if database.writing.dialect.name == "postgresql":
        with database.writing.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    report = [f"{crowd.count} entries on {database.writing.dialect.name}, ms:"]
    faults = []
    for name, read in (lists(crowd) | single(crowd) | of_the_log(crowd)).items():

        def once(read: Read = read) -> object:
            with database.reading.begin() as connection:
                return read(connection)

        with statements_of(database) as asked:
            answer = once()
        assert asked, name
        assert answer != (), name
        for statement, parameters in asked:
            found = read_too_much(database, statement, parameters) - SMALL
            faults += [(name, table) for table in found if (name, table) not in BOUNDED]
        report.append(f"{median_ms(once):8.2f}  {name}")
    with capsys.disabled():
        print("", *report, sep="\n")
    assert not faults
