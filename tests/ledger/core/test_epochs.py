"""Epochs: what they emit, to whom, under which caps, and their books."""

from dataclasses import replace

import pytest
from nectar_ledger.core.orders import Resume
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.state import EMISSION, POOL
from nectar_ledger.errors import InvariantError
from nectar_protocol.commands import KeyPurpose, KeyState
from nectar_protocol.entries import MAX_SHARES, Emitted, EpochClosed, Resumed, Share
from nectar_protocol.entry import pack_entry, parse_entry
from nectar_protocol.policy import Policy, Swarm
from nectar_protocol.record import MAX_COUNT

from tests.ledger.core.stage import (
    ALICE,
    AUDITOR,
    CAP,
    NODE,
    OTHER,
    OWNER,
    PURSE_UCR,
    SESSION,
    STRANGER,
    free,
    name_auditor,
    paid,
    serve_free,
    stock,
)
from tests.ledger.world import HOUR_MS, POLICY, Book, World, person, replay

OPEN_SWARM = replace(POLICY, swarm=Swarm.OPEN, probes_ppm=3_000_000)


def shares(book: Book, wait_ms: int = HOUR_MS) -> list[Share]:
    """What the epoch that ends emits; its books must be its last entry."""
    *emitted, books = book.tick(wait_ms)
    assert isinstance(books, EpochClosed)
    assert all(isinstance(body, Emitted) for body in emitted)
    return [share for body in emitted if isinstance(body, Emitted) for share in body.shares]


# Epochs


def test_an_epoch_lasts_its_time_to_the_millisecond(book: Book) -> None:
    assert not any(isinstance(body, EpochClosed) for body in book.tick(HOUR_MS - 1))
    (books,) = book.tick(1)
    assert isinstance(books, EpochClosed)
    assert (books.number, book.state.ledger.epoch, book.state.ledger.epoch_started_ms) == (1, 2, book.now_ms)


def test_after_a_pause_one_long_epoch_ends(book: Book) -> None:
    (books,) = book.tick(100 * HOUR_MS)
    assert isinstance(books, EpochClosed)
    assert book.tick() == []


def test_the_books_of_an_epoch_are_all_that_there_is(book: Book, world: World) -> None:
    serve_free(book, NODE, 10)
    hold = paid(book, both=True)
    book.do(world.receipt(hold, NODE, SESSION, 1, 1000))
    *_, books = book.tick(HOUR_MS)
    assert isinstance(books, EpochClosed)
    units = 703_936
    assert books.free_units == 6_405
    assert books.emitted_ucr == 2 * PURSE_UCR + 6_405
    assert books.burned_ucr == units - units * 98 // 100
    assert books.wallets_ucr == PURSE_UCR + 6_405
    assert books.pool_ucr == PURSE_UCR - 2 * CAP
    assert books.holds_ucr == 2 * CAP - units
    assert books.batches_ucr == units * 98 // 100


# Emission in a trusted swarm


def test_nodes_share_what_their_free_units_are_worth(book: Book) -> None:
    mine, others = serve_free(book, NODE, 100), serve_free(book, OTHER, 50) + serve_free(book, OTHER, 60)
    assert shares(book) == [
        Share(NODE.public, OWNER.public, mine, mine), Share(OTHER.public, OWNER.public, others, others),
    ]  # fmt: skip
    assert book.balance_ucr(OWNER) == mine + others


def test_paid_units_emit_nothing(book: Book, world: World) -> None:
    book.do(world.receipt(paid(book), NODE, SESSION, 1, 10))
    assert shares(book) == []


def test_free_units_count_once(book: Book) -> None:
    serve_free(book, NODE, 100)
    assert len(shares(book)) == 1
    assert shares(book) == []
    again = serve_free(book, NODE, 10)
    assert shares(book) == [Share(NODE.public, OWNER.public, again, again)]


@pytest.mark.parametrize(
    ("emission_ucr", "emission_price", "worth_ucr"),
    [(10**9, 1_000_000, 12_810), (10**9, 500_000, 6_405), (10**9, 333_333, 4_269), (1_001, 1_000_000, 1_001),
     (0, 1_000_000, 0), (10**9, 0, 0), (1, 1_000_000, 1), (10**9, 3_000_000, 38_430)],
)  # fmt: skip
def test_emission_is_capped_by_its_amount_and_its_price(emission_ucr: int, emission_price: int, worth_ucr: int) -> None:
    book = stock(Book(World(replace(POLICY, emission_ucr=emission_ucr, emission_price=emission_price))))
    serve_free(book, NODE, 10)
    serve_free(book, OTHER, 10)
    given = [share.amount_ucr for share in shares(book)]
    # Halves are rounded down each, and what is nobody's is never minted.
    assert given == [worth_ucr // 2] * 2 * (worth_ucr > 1)
    assert book.balance_ucr(OWNER) == worth_ucr // 2 * 2


def test_what_rounding_leaves_is_not_minted() -> None:
    book = stock(Book(World(replace(POLICY, emission_ucr=100))))
    third = person("third")
    book.do(book.world.bind(third, STRANGER))
    for node in (NODE, OTHER, third):
        serve_free(book, node, 10)
    assert [share.amount_ucr for share in shares(book)] == [33, 33, 33]
    assert -book.state.accounts[EMISSION].balance_ucr == 2 * PURSE_UCR + 99


def test_more_than_255_shares_stand_in_several_entries(book: Book, world: World) -> None:
    nodes = [person(f"node {n}") for n in range(MAX_SHARES + 45)]
    book.do(*(world.bind(node, OWNER) for node in nodes))
    for part in (nodes[:200], nodes[200:]):
        hold = book.open(world.open_hold(SESSION, SESSION, dict.fromkeys(part, 10_000), book.now_ms + 1_000))
        book.do(*(world.receipt(hold, node, SESSION, 1, 1) for node in part))
    *emitted, books = book.tick(HOUR_MS)
    assert [len(body.shares) for body in emitted if isinstance(body, Emitted)] == [MAX_SHARES, 45]
    assert isinstance(books, EpochClosed)
    assert book.balance_ucr(OWNER) == 300 * 640
    assert all(len(draft.entry) < 65_536 for draft in book.log[-3:])
    replay(book.log, public=True)


# Emission in an open swarm


def test_in_an_open_swarm_auditors_get_equal_parts_into_their_purses() -> None:
    book = stock(Book(World(replace(OPEN_SWARM, emission_ucr=1_000_001))))
    other = person("other auditor")
    name_auditor(book)
    book.do(book.world.set_key(other, KeyPurpose.AUDITOR))
    serve_free(book, NODE, 100)
    given = shares(book)
    assert given == [Share(key, key, 0, 500_000) for key in sorted((AUDITOR.public, other.public))]
    assert (book.purse_ucr(AUDITOR), book.balance_ucr(AUDITOR)) == (500_000, 0)
    assert book.state.accounts[POOL].balance_ucr == PURSE_UCR + 1_000_000
    assert book.balance_ucr(OWNER) == 0


def test_without_auditors_or_enough_to_share_an_open_swarm_emits_nothing() -> None:
    book = stock(Book(World(replace(OPEN_SWARM, emission_ucr=1))))
    assert shares(book) == []
    name_auditor(book)
    book.do(book.world.set_key(STRANGER, KeyPurpose.AUDITOR))
    assert shares(book) == []
    book.do(book.world.set_key(STRANGER, KeyPurpose.AUDITOR, KeyState.REVOKED))
    assert [share.account for share in shares(book)] == [AUDITOR.public]


def test_more_than_255_auditors_get_theirs_in_several_entries() -> None:
    book = Book(World(OPEN_SWARM))
    auditors = [person(f"auditor {n}") for n in range(MAX_SHARES + 1)]
    book.do(*(book.world.set_key(auditor, KeyPurpose.AUDITOR) for auditor in auditors))
    *emitted, _ = book.tick(HOUR_MS)
    assert [len(body.shares) for body in emitted if isinstance(body, Emitted)] == [MAX_SHARES, 1]
    assert {book.purse_ucr(auditor) for auditor in auditors} == {OPEN_SWARM.emission_ucr // 256}


def test_an_auditor_spends_its_part_as_any_client(book: Book) -> None:
    book = stock(Book(World(OPEN_SWARM)))
    name_auditor(book)
    book.tick(HOUR_MS)
    order = book.world.open_hold(AUDITOR, SESSION, {NODE: 10_000}, book.now_ms + 1_000)
    assert book.open(order).weight == 1
    book.do(book.world.withdraw(AUDITOR, 1_000))


def test_the_policy_in_force_when_an_epoch_ends_says_who_gets_what(book: Book, world: World) -> None:
    name_auditor(book)
    serve_free(book, NODE, 10)
    book.do(world.publish_policy(replace(OPEN_SWARM, version=2)))
    (share,) = shares(book)
    assert share == Share(AUDITOR.public, AUDITOR.public, 0, OPEN_SWARM.emission_ucr)


def test_a_policy_may_make_epochs_shorter_at_once(book: Book, world: World) -> None:
    book.do(world.publish_policy(replace(POLICY, version=2, epoch_ms=1_000)))
    assert shares(book, 1_000) == []


# Grants


def test_grants_are_capped_in_each_epoch() -> None:
    book = Book(World(replace(POLICY, grants_ucr=1_000)))
    world = book.world
    assert book.refuse(world.grant(ALICE, 1_001)) == Reason.WRONG_AMOUNT
    book.do(world.grant(ALICE, 600), world.grant(STRANGER, 400))
    assert book.refuse(world.grant(ALICE, 1)) == Reason.WRONG_AMOUNT
    book.tick(HOUR_MS)
    book.do(world.grant(ALICE, 1_000))
    assert book.balance_ucr(ALICE) == 1_600


def test_a_policy_that_allows_less_stops_grants_until_the_epoch_ends(book: Book, world: World) -> None:
    book.do(world.publish_policy(replace(POLICY, version=2, grants_ucr=PURSE_UCR)))
    assert book.refuse(world.grant(ALICE, 1)) == Reason.WRONG_AMOUNT
    book.tick(HOUR_MS)
    book.do(world.grant(ALICE, PURSE_UCR))


@pytest.mark.parametrize("policy", [POLICY, OPEN_SWARM], ids=["trusted", "open"])
def test_no_ledger_emits_more_than_its_books_can_hold(policy: Policy) -> None:
    book = stock(Book(World(replace(policy, grants_ucr=MAX_COUNT, emission_ucr=10**9))))
    world, left_ucr = book.world, MAX_COUNT - 2 * PURSE_UCR
    name_auditor(book)
    assert book.refuse(world.grant(ALICE, left_ucr + 1)) == Reason.WRONG_AMOUNT
    book.do(world.grant(ALICE, left_ucr - 500))
    serve_free(book, NODE, 10)
    assert [share.amount_ucr for share in shares(book)] == [500]
    assert book.refuse(world.grant(ALICE, 1)) == Reason.WRONG_AMOUNT
    serve_free(book, NODE, 10)
    assert shares(book) == []


# Outages


def test_a_ledger_was_down_since_its_newest_entry(book: Book) -> None:
    before_ms = book.now_ms
    book.now_ms += 5_000
    book.do(Resume())
    assert parse_entry(book.log[-1].entry).body == Resumed(before_ms)
    assert book.state.outages == [(before_ms, book.now_ms)]


def test_a_log_that_says_it_was_down_at_another_time_is_refused(book: Book) -> None:
    for down_ms in (book.now_ms - 1, book.now_ms + 1, 0):
        with pytest.raises(InvariantError, match="another time"):
            replay(book.log).apply(len(book.log), pack_entry(book.now_ms + 5_000, Resumed(down_ms)))


def test_free_work_of_a_session_that_ended_counts_too(book: Book, world: World) -> None:
    hold = free(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    assert hold.id not in book.state.holds
    assert [share.amount_ucr for share in shares(book)] == [6_405]
