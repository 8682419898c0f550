"""Holds for sessions, from a ledger that is really served."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from nectar.caps import Extent
from nectar.errors import BudgetError, InsufficientFundsError, PaymentError
from nectar.ledger import Ledger
from nectar.purse import Order, Part, Purse, UnmeteredError
from nectar_ledger_client.errors import RefusedError
from nectar_protocol.announcement import Profile
from nectar_protocol.hold import check_extends
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_protocol.money import MAX_UCR

from tests.ledger.api.served import ALICE, NODE, Served, serve, usual
from tests.ledger.world import POLICY, World, person

MODEL_BLOCKS = 8
EXTENT = Extent(rows=1, length=100, prompt=40)
BOB, STRANGER = person("bob"), person("stranger")
SESSION = person("session")
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Alice's purse and balance are full; Bob has ten credits and no purse."""
    world = World()
    orders = [*usual(world), world.grant(BOB, 10_000_000)]
    ledger, stop = serve(tmp_path_factory.mktemp("ledger"), world, orders=orders)
    yield ledger
    stop()


@pytest.fixture
async def purse_of(served: Served) -> AsyncIterator[Callable[..., Purse]]:
    ledgers: list[Ledger] = []

    def make(wallet: Identity | None = None, address: str = served.url) -> Purse:
        ledgers.append(Ledger(address))
        return Purse(ledgers[-1], wallet)

    yield make
    for ledger in ledgers:
        await ledger.aclose()


def part(node: Identity = NODE, start: int = 0, stop: int = MODEL_BLOCKS) -> Part:
    return Part(node.public, start, stop, Profile.F32)


def order(world: World, weight: int = 0, budget_ucr: int = MAX_UCR, extent: Extent = EXTENT) -> Order:
    return Order(Identity.generate(), ModelID(world.model.model), extent, weight, budget_ucr)


async def test_a_free_hold_needs_no_account_and_is_worth_what_a_session_can_come_to(
    purse_of: Callable[..., Purse], served: Served
) -> None:
    purse, wanted = purse_of(), order(served.world)
    bought = await purse.open(wanted, [part()])
    hold = bought.hold.hold
    bought.hold.verify(served.world.keys.holds.public)
    assert (hold.weight, hold.session, hold.ledger) == (0, wanted.session.public, served.world.ledger)
    line = hold.line(NODE.public)
    assert line is not None
    cost = bought.meter(part()).units(EXTENT.work)
    assert cost < line.cap_units <= POLICY.free_cap_units
    assert purse.ledger.now_ms < hold.expires_ms <= purse.ledger.now_ms + POLICY.hold_life_ms


async def test_a_weight_is_paid_from_the_purse(purse_of: Callable[..., Purse], served: Served) -> None:
    purse = purse_of(ALICE)
    before = await purse.ledger.in_time(lambda: purse.ledger.client.purse(ALICE))
    bought = await purse.open(order(served.world, weight=4), [part()])
    after = await purse.ledger.client.purse(ALICE)
    escrow_ucr = bought.hold.hold.escrow_ucr(POLICY.price)
    assert before.balance_ucr - after.balance_ucr == escrow_ucr > 0
    assert bought.hold.hold.weight == 4


async def test_a_short_purse_is_filled_by_a_round_amount(purse_of: Callable[..., Purse], served: Served) -> None:
    purse = purse_of(BOB)
    small = order(served.world, weight=1, extent=Extent(1, 4, 2))
    bought = await purse.open(small, [part()])
    filled = await purse.ledger.client.purse(BOB)
    assert filled.credits_ucr % POLICY.purse_step_ucr == 0
    assert filled.credits_ucr - bought.hold.hold.escrow_ucr(POLICY.price) < POLICY.purse_step_ucr


async def test_too_few_credits_say_how_many_are_there_and_what_to_do(
    purse_of: Callable[..., Purse], served: Served
) -> None:
    with pytest.raises(InsufficientFundsError, match=r"sets .* credits aside; .* weight 0"):
        await purse_of(BOB).open(order(served.world, weight=8, extent=Extent(4, 4000, 1)), [part()])
    with pytest.raises(InsufficientFundsError, match="your account 0,"):
        await purse_of(person("pauper")).open(order(served.world, weight=1), [part()])
    with pytest.raises(PaymentError, match="wallet"):
        await purse_of().open(order(served.world, weight=1), [part()])


async def test_no_more_than_the_budget_is_set_aside(purse_of: Callable[..., Purse], served: Served) -> None:
    purse = purse_of(ALICE)
    other = person("another node")
    served.record(served.world.bind(other, person("owner")))
    parts = [part(NODE, 0, 6), part(other, 6, 8)]
    full = (await purse.open(order(served.world, weight=2), parts)).hold.hold
    budget_ucr = full.escrow_ucr(POLICY.price) // 3
    bought = await purse.open(order(served.world, 2, budget_ucr), parts)
    cut = bought.hold.hold
    assert budget_ucr * 0.99 < cut.escrow_ucr(POLICY.price) <= budget_ucr
    for line, whole in zip(cut.lines, full.lines, strict=True):
        assert line.cap_units == pytest.approx(whole.cap_units / 3, rel=0.01)
    same = await purse.extend(bought, SESSION, {NODE.public: cut.lines[0].cap_units * 10})
    assert same.hold.hold.escrow_ucr(POLICY.price) <= budget_ucr
    with pytest.raises(BudgetError, match="a budget of 0 credits"):
        await purse.open(order(served.world, 1, 0), parts)


async def test_a_hold_is_extended_by_lines_caps_and_time(purse_of: Callable[..., Purse], served: Served) -> None:
    purse, wanted, late = purse_of(), order(served.world), person("a late node")
    bought = await purse.open(wanted, [part(NODE, 0, 4)])
    served.record(served.world.bind(late, person("owner")))
    cap = bought.hold.hold.lines[0].cap_units
    revised = await purse.extend(bought, wanted.session, {NODE.public: 2 * cap, late.public: 77})
    check_extends(bought.hold.hold, revised.hold.hold)
    assert {line.server: line.cap_units for line in revised.hold.hold.lines} == {NODE.public: 2 * cap, late.public: 77}
    again = await purse.extend(revised, wanted.session, {NODE.public: 10**15})
    line = again.hold.hold.line(NODE.public)
    assert line is not None
    assert line.cap_units == POLICY.free_cap_units


async def test_a_node_without_a_payee_is_left_out(purse_of: Callable[..., Purse], served: Served) -> None:
    purse = purse_of()
    bought = await purse.open(order(served.world), [part(NODE, 0, 4), part(STRANGER, 4, 8)])
    assert [line.server for line in bought.hold.hold.lines] == [NODE.public]
    with pytest.raises(UnmeteredError, match="no node of the route"):
        await purse.open(order(served.world), [part(STRANGER)])


async def test_a_model_that_the_ledger_does_not_know_is_unmetered(
    purse_of: Callable[..., Purse], served: Served
) -> None:
    unknown = replace(order(served.world), model=ModelID(b"u" * 32))
    with pytest.raises(UnmeteredError, match="no entry for this model"):
        await purse_of(ALICE).open(unknown, [part()])


async def test_a_new_policy_and_a_clock_that_was_put_right_are_taken_up(
    purse_of: Callable[..., Purse], served: Served
) -> None:
    purse = purse_of()
    await purse.open(order(served.world), [part()])
    served.record(served.world.publish_policy(replace(served.world.policy, version=2)))
    served.clock.now_ms += 3_000_000
    bought = await purse.open(order(served.world), [part()])
    assert bought.hold.hold.policy == served.world.policy.id
    assert bought.hold.hold.expires_ms > served.clock.now_ms


async def test_a_ledger_that_is_down_is_told_once_and_not_asked_again_for_a_while(
    purse_of: Callable[..., Purse], served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    purse = purse_of(ALICE, NOWHERE)
    with caplog.at_level(logging.WARNING):
        for weight in (0, 4, 0):
            with pytest.raises(UnmeteredError):
                await purse.open(order(served.world, weight), [part()])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert purse.ledger.is_down


async def test_a_ledger_that_signs_with_another_key_is_not_believed(
    purse_of: Callable[..., Purse], served: Served, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        impostor = World()
        other, stop = serve(tmp_path, impostor, orders=usual(impostor))
        stack.callback(stop)
        purse = purse_of(ALICE, other.url)
        await purse.learn(ModelID(served.world.model.model))
        known = await purse.ledger.client.known()
        purse.ledger.client._known = replace(known, holds=person("not its key").public)
        with pytest.raises(PaymentError, match="not signed by the ledger's key"):
            await purse.open(order(served.world, weight=1), [part()])
        with pytest.raises(UnmeteredError):
            await purse.open(order(served.world), [part()])


async def test_what_a_session_leaves_comes_back_with_its_final_receipt(
    purse_of: Callable[..., Purse], served: Served
) -> None:
    purse, wanted = purse_of(ALICE), order(served.world, weight=2)
    before = await purse.ledger.in_time(lambda: purse.ledger.client.purse(ALICE))
    bought = await purse.open(wanted, [part()])
    settle = served.world.receipt(bought.hold.hold, NODE, wanted.session, 1, 3, final=True)
    await purse.close(wanted.session, bought.hold, [settle.receipt], is_whole=True)
    after = await purse.ledger.client.purse(ALICE)
    assert before.balance_ucr - after.balance_ucr == settle.receipt.receipt.units * 2
    with pytest.raises(RefusedError):
        await purse.extend(bought, wanted.session, {})


async def test_many_sessions_at_once_set_aside_no_more_than_there_is(
    purse_of: Callable[..., Purse], served: Served
) -> None:
    rich = person("rich for a moment")
    served.record(served.world.grant(rich, 2_000_000))
    purse = purse_of(rich)
    orders = [order(served.world, weight=1, extent=Extent(1, 20, 2)) for _ in range(8)]
    outcomes = await asyncio.gather(*(purse.open(one, [part()]) for one in orders), return_exceptions=True)
    spent_ucr = sum(one.hold.hold.escrow_ucr(POLICY.price) for one in outcomes if not isinstance(one, BaseException))
    failures = [one for one in outcomes if isinstance(one, BaseException)]
    assert all(isinstance(one, PaymentError) for one in failures)
    purse_now = await purse.ledger.client.purse(rich)
    balance = await purse.ledger.client.balance(rich.public)
    assert purse_now.balance_ucr + balance.balance_ucr + spent_ucr == 2_000_000
