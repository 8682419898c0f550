"""Whose keys count: the operator's by purpose, nodes by their payees."""

import pytest
from nectar_ledger.core.reasons import Reason
from nectar_ledger.errors import InvariantError
from nectar_protocol.commands import KeyPurpose, KeyState
from nectar_protocol.entry import pack_entry

from tests.ledger.core.stage import ALICE, AUDITOR, NODE, OWNER, SESSION, STRANGER, paid
from tests.ledger.world import HOUR_MS, Book, World, person


def test_a_node_is_bound_once(book: Book, world: World) -> None:
    assert book.refuse(world.bind(NODE, STRANGER)) == Reason.ALREADY_BOUND
    assert book.refuse(world.bind(NODE, OWNER)) == Reason.ALREADY_BOUND
    assert book.state.nodes[NODE.public].payee.owner == OWNER.public


def test_the_payee_names_another_payee(book: Book, world: World) -> None:
    heir = person("heir")
    assert book.refuse(world.change_payee(NODE, STRANGER, heir)) == Reason.NOT_AUTHORIZED
    assert book.refuse(world.change_payee(STRANGER, OWNER, heir)) == Reason.UNKNOWN_NODE
    book.do(world.change_payee(NODE, OWNER, heir))
    assert book.refuse(world.change_payee(NODE, OWNER, STRANGER)) == Reason.NOT_AUTHORIZED
    assert book.state.nodes[NODE.public].bound_index == len(book.log) - 1


def test_earnings_go_to_the_payee_of_the_moment_they_are_released(book: Book, world: World) -> None:
    heir, hold = person("heir"), paid(book)
    book.do(world.receipt(hold, NODE, SESSION, 1, 1000))
    pending_ucr = book.pending_ucr(NODE)
    book.do(world.change_payee(NODE, OWNER, heir))
    book.tick(world.policy.batch_ms)
    assert (book.balance_ucr(OWNER), book.balance_ucr(heir)) == (0, pending_ucr)


def test_a_payee_may_have_many_nodes_and_a_node_may_be_a_payers(book: Book, world: World) -> None:
    book.do(world.bind(person("third"), OWNER), world.bind(person("fourth"), ALICE))
    assert sum(node.payee.owner == OWNER.public for node in book.state.nodes.values()) == 3


def test_only_an_operator_sets_keys(book: Book, world: World) -> None:
    world.keys.operator = STRANGER
    assert book.refuse(world.set_key(AUDITOR, KeyPurpose.AUDITOR)) == Reason.NOT_AUTHORIZED
    assert book.refuse(world.grant(ALICE, 1)) == Reason.NOT_AUTHORIZED


def test_a_key_has_the_purposes_it_was_given_and_no_other(book: Book, world: World) -> None:
    book.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    assert book.state.is_active(AUDITOR.public, KeyPurpose.AUDITOR)
    assert not book.state.is_active(AUDITOR.public, KeyPurpose.OPERATOR)
    book.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR, KeyState.REVOKED))
    assert not book.state.is_active(AUDITOR.public, KeyPurpose.AUDITOR)
    assert book.state.active_keys(KeyPurpose.AUDITOR) == []


def test_setting_a_key_to_what_it_is_records_nothing(book: Book, world: World) -> None:
    revoke = world.set_key(AUDITOR, KeyPurpose.AUDITOR, KeyState.REVOKED)
    (answer,) = book.do(revoke)
    assert answer.index is None
    book.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    (answer,) = book.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    assert answer.index is None
    world.keys.operator = STRANGER
    assert book.refuse(world.set_key(AUDITOR, KeyPurpose.AUDITOR)) == Reason.NOT_AUTHORIZED


def test_a_log_that_sets_a_key_to_what_it_is_is_refused(book: Book, world: World) -> None:
    nothing = world.set_key(AUDITOR, KeyPurpose.AUDITOR, KeyState.REVOKED)
    with pytest.raises(InvariantError, match="what it is"):
        book.ledger.apply(len(book.log), pack_entry(book.now_ms, nothing.signed))


def test_a_ledger_always_has_an_operator(book: Book, world: World) -> None:
    first, second = world.keys.operator, person("second")
    assert book.refuse(world.set_key(first, KeyPurpose.OPERATOR, KeyState.REVOKED)) == Reason.NOT_AUTHORIZED
    book.do(world.set_key(second, KeyPurpose.OPERATOR))
    revoke_second = world.set_key(second, KeyPurpose.OPERATOR, KeyState.REVOKED)
    world.keys.operator = second
    book.do(world.set_key(first, KeyPurpose.OPERATOR, KeyState.REVOKED))
    assert book.refuse(revoke_second) == Reason.NOT_AUTHORIZED
    assert book.state.active_keys(KeyPurpose.OPERATOR) == [second.public]


def test_a_revoked_key_signs_no_holds(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.set_key(world.keys.holds, KeyPurpose.HOLDS, KeyState.REVOKED))
    order = world.open_hold(ALICE, SESSION, {NODE: 1_000}, book.now_ms + 1_000)
    assert book.refuse(order) == Reason.NOT_AUTHORIZED
    assert book.refuse(world.extend(ALICE, hold, {NODE: 2_000_000}, hold.expires_ms)) == Reason.NOT_AUTHORIZED
    book.do(world.receipt(hold, NODE, SESSION, 1, 10, final=True))


def test_emission_follows_the_payee_that_a_node_has_when_the_epoch_ends(book: Book, world: World) -> None:
    heir = person("heir")
    hold = book.open(world.open_hold(STRANGER, STRANGER, {NODE: 1_000_000}, book.now_ms + 1000))
    book.do(world.receipt(hold, NODE, STRANGER, 1, 1000), world.change_payee(NODE, OWNER, heir))
    book.tick(HOUR_MS)
    assert (book.balance_ucr(OWNER), book.balance_ucr(heir)) == (0, 703_936)
