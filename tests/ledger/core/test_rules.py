"""The genesis, policies and model entries: who may publish them, and for whom they count."""

from dataclasses import replace

import pytest
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.machine import Rejected
from nectar_ledger.core.orders import Begin, Resume, Tick
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.state import State
from nectar_ledger.errors import InvariantError
from nectar_protocol.commands import FundPurse, KeyPurpose, KeyState
from nectar_protocol.entries import Resumed, VerdictSealed
from nectar_protocol.entry import entry_hash, pack_entry

from tests.ledger.core.stage import ALICE, LIFE_MS, NODE, SESSION, STRANGER, paid
from tests.ledger.world import START_MS, Book, World


def test_a_ledger_is_named_by_its_first_entry(world: World) -> None:
    book = Book(world)
    assert book.state.ledger.id == entry_hash(book.log[0].entry) == world.ledger
    keys = world.keys
    assert book.state.active_keys(KeyPurpose.OPERATOR) == [keys.operator.public]
    assert book.state.active_keys(KeyPurpose.POLICY) == [keys.publisher.public]
    assert book.state.active_keys(KeyPurpose.HOLDS) == [keys.holds.public]
    assert book.state.active_keys(KeyPurpose.LOG) == [keys.log.public]


def test_a_ledger_begins_once(world: World) -> None:
    assert Book(world).refuse(Begin(world.genesis)) == Reason.CONFLICT


def test_before_its_genesis_a_ledger_does_nothing(world: World) -> None:
    empty = Ledger(State(), world.keys.holds)
    for order in (world.fund(ALICE, 1000), Resume()):
        outcome = empty.decide(order, START_MS)
        assert isinstance(outcome, Rejected)
        assert outcome.code == Reason.FOREIGN_LEDGER
    ticked = empty.decide(Tick(), START_MS)
    assert not isinstance(ticked, Rejected)
    assert not ticked.drafts


@pytest.mark.parametrize("public", [False, True])
def test_a_log_begins_with_nothing_but_a_genesis(world: World, public: bool) -> None:
    for body in (Resumed(0), VerdictSealed(bytes(32)), world.fund(ALICE, 1000).signed):
        with pytest.raises(InvariantError, match="genesis"):
            Ledger(State(public)).apply(0, pack_entry(START_MS, body))


def test_entries_are_applied_in_their_order_and_time_never_falls(world: World) -> None:
    book = Book(world)
    for index, time_ms in ((0, START_MS), (2, START_MS), (1, START_MS - 1)):
        with pytest.raises(InvariantError, match="follows"):
            book.ledger.apply(index, pack_entry(time_ms, Resumed(START_MS)))
    book.ledger.apply(1, pack_entry(START_MS, Resumed(START_MS)))


def test_a_command_for_another_ledger_is_refused(book: Book, world: World) -> None:
    foreign = world.obey(FundPurse, ALICE, account=ALICE.public, amount_ucr=1000, ledger=bytes(32))
    assert book.refuse(foreign) == Reason.FOREIGN_LEDGER


def test_a_command_counts_until_its_last_millisecond(book: Book, world: World) -> None:
    def fund(expires_ms: int) -> str | None:
        order = world.obey(FundPurse, ALICE, account=ALICE.public, amount_ucr=1000, expires_ms=expires_ms)
        return book.refuse(order) if expires_ms < book.now_ms else str(book.do(order))

    assert fund(book.now_ms - 1) == Reason.COMMAND_EXPIRED
    assert fund(book.now_ms) != Reason.COMMAND_EXPIRED


def test_an_id_is_of_one_body_and_gives_one_answer(book: Book, world: World) -> None:
    order = world.fund(ALICE, 5_000)
    first = book.do(order)
    assert book.do(order, order) == first * 2
    other = world.obey(FundPurse, ALICE, account=ALICE.public, amount_ucr=6_000, id=order.signed.command.id)
    assert book.refuse(other) == "conflict"
    rows = [body for body in book.bodies() if body == order.signed]
    assert len(rows) == 1


def test_what_was_refused_may_be_asked_again_under_its_id(book: Book, world: World) -> None:
    poor = world.fund(STRANGER, 1_000)
    assert book.refuse(poor) == Reason.INSUFFICIENT_FUNDS
    book.do(world.grant(STRANGER, 1_000), poor)
    assert book.purse_ucr(STRANGER) == 1_000


# Policies


def test_only_the_policy_key_publishes(book: Book, world: World) -> None:
    world.keys.publisher = STRANGER
    assert book.refuse(world.publish_policy(replace(world.policy, version=2))) == Reason.NOT_AUTHORIZED
    assert book.refuse(world.publish_model(replace(world.model, version=2))) == Reason.NOT_AUTHORIZED


def test_a_revoked_policy_key_publishes_no_more(book: Book, world: World) -> None:
    book.do(world.set_key(world.keys.publisher, KeyPurpose.POLICY, KeyState.REVOKED))
    assert book.refuse(world.publish_policy(replace(world.policy, version=2))) == Reason.NOT_AUTHORIZED


@pytest.mark.parametrize("version", [1, 3])
def test_versions_are_counted_without_gaps(book: Book, world: World, version: int) -> None:
    assert book.refuse(world.publish_policy(replace(world.policy, version=version))) == Reason.WRONG_VERSION
    assert book.refuse(world.publish_model(replace(world.model, version=version))) == Reason.WRONG_VERSION


def test_a_hold_names_the_policy_in_force(book: Book, world: World) -> None:
    old = world.policy
    book.do(world.publish_policy(replace(old, version=2, price=2_000_000)))
    new, world.policy = world.policy, old
    order = world.open_hold(ALICE, SESSION, {NODE: 1000}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.UNKNOWN_POLICY
    world.policy = new
    assert paid(book, cap=1000)


def test_a_hold_keeps_the_price_the_fee_and_the_grace_it_was_opened_under(book: Book, world: World) -> None:
    hold, old = paid(book), world.policy
    book.do(
        world.publish_policy(
            replace(old, version=2, price=1, fee_ppm=1_000_000, grace_ms=0, decode_ppm=1, hold_life_ms=1)
        )
    )
    book.do(world.receipt(hold, NODE, SESSION, 1, 1000))
    units = book.state.holds[hold.id].lines[NODE.public].units
    assert units == 703_936
    assert book.pending_ucr(NODE) == units * 98 // 100
    more = world.extend(ALICE, hold, {NODE: 2_000_000}, book.now_ms + LIFE_MS)
    book.open(more)
    assert book.state.holds[hold.id].account.balance_ucr == 2_000_000 - units
    book.tick(LIFE_MS + old.grace_ms)
    assert hold.id in book.state.holds
    book.tick(1)
    assert hold.id not in book.state.holds


def test_a_hold_keeps_the_model_entry_it_was_opened_under(book: Book, world: World) -> None:
    hold, old = paid(book), world.model
    dearer = replace(old, version=2, blocks=tuple(replace(cost, token_flops=10**9) for cost in old.blocks))
    book.do(world.publish_model(dearer), world.receipt(hold, NODE, SESSION, 1, 1000))
    world.model = dearer
    new = book.open(world.open_hold(ALICE, STRANGER, {NODE: 50_000_000}, book.now_ms + LIFE_MS))
    assert book.refuse(world.receipt(hold, NODE, SESSION, 2, 1001)) == Reason.WRONG_UNITS
    book.do(world.receipt(new, NODE, STRANGER, 1, 1000))


def test_a_model_without_an_entry_has_no_holds(world: World) -> None:
    book = Book(world)
    book.do(world.bind(NODE, STRANGER))
    order = world.open_hold(SESSION, SESSION, {NODE: 1000}, book.now_ms + LIFE_MS)
    assert book.refuse(order) == Reason.UNKNOWN_MODEL


def test_a_request_with_another_id_is_another_hold(book: Book, world: World) -> None:
    first, second = (world.open_hold(ALICE, SESSION, {NODE: 1000}, book.now_ms + LIFE_MS) for _ in range(2))
    assert book.open(first).id == first.signed.command.body_hash != book.open(second).id
    assert len(book.state.holds) == 2
