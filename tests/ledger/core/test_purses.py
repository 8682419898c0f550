"""Credits between an account's public balance and its purse, by round amounts through the pool."""

import pytest
from nectar_ledger.core.reasons import Reason
from nectar_ledger.core.state import POOL

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import ALICE, CAP, NODE, PURSE_UCR, STRANGER, paid
from tests.ledger.world import Book, World


def test_a_purse_is_filled_and_emptied_by_public_transfers(book: Book, world: World) -> None:
    book.do(world.fund(ALICE, 5_000), world.withdraw(ALICE, 105_000))
    assert (book.balance_ucr(ALICE), book.purse_ucr(ALICE)) == (PURSE_UCR + 100_000, PURSE_UCR - 100_000)
    assert book.state.accounts[POOL].balance_ucr == book.purse_ucr(ALICE)


@pytest.mark.parametrize("amount_ucr", [1, 999, 1_001, 2**53 - 1])
def test_a_purse_moves_round_amounts_only(book: Book, world: World, amount_ucr: int) -> None:
    assert book.refuse(world.fund(ALICE, amount_ucr)) == Reason.WRONG_AMOUNT
    assert book.refuse(world.withdraw(ALICE, amount_ucr)) == Reason.WRONG_AMOUNT


def test_nobody_funds_a_purse_with_more_than_they_have(book: Book, world: World) -> None:
    assert book.refuse(world.fund(ALICE, PURSE_UCR + 1_000)) == Reason.INSUFFICIENT_FUNDS
    assert book.refuse(world.fund(STRANGER, 1_000)) == Reason.INSUFFICIENT_FUNDS
    book.do(world.fund(ALICE, PURSE_UCR))
    assert book.balance_ucr(ALICE) == 0


def test_nobody_withdraws_what_is_not_in_the_purse(book: Book, world: World) -> None:
    assert book.refuse(world.withdraw(ALICE, PURSE_UCR + 1_000)) == Reason.INSUFFICIENT_FUNDS
    assert book.refuse(world.withdraw(STRANGER, 1_000)) == Reason.INSUFFICIENT_FUNDS
    paid(book, cap=CAP)
    assert book.refuse(world.withdraw(ALICE, PURSE_UCR)) == Reason.INSUFFICIENT_FUNDS
    book.do(world.withdraw(ALICE, PURSE_UCR - CAP))
    assert book.purse_ucr(ALICE) == 0


def test_every_movement_of_a_purse_is_a_line_of_its_statement(book: Book, world: World) -> None:
    hold = paid(book)
    book.do(world.withdraw(ALICE, 1_000))
    book.open(world.extend(ALICE, hold, {NODE: CAP + 7}, hold.expires_ms))
    lines = [(row[2], row[4]) for row in mirrored(book.log).rows("purse_lines")]
    balances = [PURSE_UCR, PURSE_UCR - CAP, PURSE_UCR - CAP - 1_000, PURSE_UCR - CAP - 1_007]
    assert lines == list(zip([PURSE_UCR, -CAP, -1_000, -7], balances, strict=True))
